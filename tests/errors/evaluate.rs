//! Sources that don't evaluate.
