//! The program as people and probes meet it: the client's commands, a node's refusals to start, and
//! its HTTP side.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bootstrap;
mod bundle;
mod check;
mod clean;
mod client;
mod http;
#[path = "../lab/mod.rs"]
mod lab;
mod metrics;
mod node;
mod program;
