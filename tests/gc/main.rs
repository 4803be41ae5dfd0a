//! `nix-csi gc`, of a store that nothing else serves and of one with a running node.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod collects;
mod full;
mod races;
mod shown;
mod world;
