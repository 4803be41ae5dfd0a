//! What a pod's author tries with an expression, a flake or a builder, against a real node and a real
//! Nix: files of the node, of its driver and of others.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod build;
mod disk;
mod environment;
mod evaluate;
mod greedy;
mod in_store;
mod local;
mod neighbours;
mod no_sandbox;
mod policy;
mod powers;
mod private;
mod secrets;
mod settings;
mod shown;
mod store_dir;
mod substituters;
mod swapped;
mod taken_over;
mod tokens;
mod world;
