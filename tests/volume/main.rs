//! Volumes of a real node against a real Nix, from publish to nothing left.

#[path = "../lab/mod.rs"]
mod lab;

mod lifecycle;
