//! The cache role and nodes that use it: real sshd, real Nix, and machines on a wire of their own.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod crowd;
mod ends;
mod flow;
mod garbage;
mod hangs;
mod keys;
mod limits;
mod nodes;
mod secrets;
mod ssh;
mod turns;
