//! The actors. `core` is the framework; each other module is one actor or one family.

pub mod core;
