//! What of a store would be collected, and why the rest stays.

pub mod plan;
pub mod used;
pub mod why;
