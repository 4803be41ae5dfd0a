//! What a kubelet does beside the volumes' own calls, with a stand-in for it: it finds the registration
//! socket, and says whose a volume is. `tests/e2e` has the real one.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod pod_info;
mod registration;
