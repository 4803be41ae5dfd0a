//! Volumes of a real node against a real Nix, from publish to nothing left.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod bounded;
mod collector;
mod conflicts;
mod contents;
mod crashes;
mod crowd;
mod edge;
mod idle;
mod logs;
mod presentations;
mod records;
mod restarts;
mod sources;
mod stats;
mod users;
mod world;
mod writable;
