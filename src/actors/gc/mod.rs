//! When a store is collected, what goes, and why the rest stays.

pub mod plan;
