//! Sources that can't be built or fetched.
