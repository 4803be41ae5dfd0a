//! `nix-csi check`: whether an installation in a cluster works, seen from outside.
//!
//! - [`ClusterCheck`]: what is asked of the API server, and (`runs`) the canaries, which go in any case.
//! - `judge`, `samples`: from what was found to rows, pure. `pods`: why a pod is not ready, pure.
//! - `canary`: the pod that mounts a volume, and what became of it, pure.

use std::time::Duration;

mod canary;
mod cluster;
mod judge;
mod pods;
mod runs;
mod samples;

pub use canary::expression as canary_expression;
pub use cluster::ClusterCheck;

/// What came of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Failed,
    /// There is nothing to be looked at, or nobody knows.
    Skipped,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub what: String,
    pub verdict: Verdict,
    /// What was found; of a failure the reason.
    pub found: String,
    /// What to do about a failure.
    pub way_out: Option<String>,
}

impl Row {
    fn ok(what: impl Into<String>, found: impl Into<String>) -> Self {
        let (what, found) = (what.into(), found.into());
        Self { what, verdict: Verdict::Ok, found, way_out: None }
    }

    fn skipped(what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::ok(what, found) }
    }

    fn failed(
        what: impl Into<String>,
        found: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Failed, way_out: Some(way_out.into()), ..Self::ok(what, found) }
    }
}

/// Where canaries run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryNodes {
    /// One whose driver is ready, if there is any.
    One,
    /// Each with a driver's pod.
    All,
    Named(Vec<String>),
}

#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// The driver's.
    pub namespace: String,
    pub driver: String,
    pub canary_namespace: String,
    pub nodes: CanaryNodes,
    /// For one canary to end.
    pub timeout: Duration,
}
