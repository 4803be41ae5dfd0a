//! What a publish that can't work says to the pod's user, through gRPC as the kubelet shows it, and
//! that nothing of it stays.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod evaluate;
mod full_disk;
#[path = "../lab/mod.rs"]
mod lab;
mod limits;
mod realise;
mod refusal;
mod request;
mod targets;
