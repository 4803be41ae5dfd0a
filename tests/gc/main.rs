//! `nix-csi gc`, of a store that nothing else serves and of one with a running node; and what nodes collect.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod both;
mod collects;
mod full;
mod hangs;
mod kills;
mod leaks;
mod races;
mod remains;
mod shown;
mod store;
mod world;
