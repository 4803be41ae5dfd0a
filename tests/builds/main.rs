//! Builds and fetches that take longer than a call, are shared, or are interrupted: what a kubelet
//! that calls again sees, and what is done twice. Times are 60 times shorter than real ones unless
//! `NIX_CSI_FULL=1`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod conf;
mod defects;
mod fetch;
mod flakes;
mod kills;
mod long;
mod metrics;
mod outage;
mod shared;
mod world;
