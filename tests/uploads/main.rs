//! Uploads by the real binary with real Nix: what arrives in a cache, what a program of the operator's
//! is told, and what happens when the cache or the driver does not play along.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod cache;
mod program;
mod trouble;
mod world;
