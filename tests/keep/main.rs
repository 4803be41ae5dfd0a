//! What a real node keeps warm: before a pod asks, against collectors of others, over restarts.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;
#[path = "../cli/program.rs"]
mod program;

mod prefetch;
mod settings;
mod world;
