//! What is written of each thing that was measured: an entry of `bench.json`.

use serde::{Deserialize, Serialize};

/// The alternative that is none.
pub const OURS: &str = "nix-csi";
pub const SECONDS: &str = "s";
pub const BYTES: &str = "B";
/// Of what can be counted.
pub const NUMBER: &str = "1";

#[derive(Debug, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    pub closure: String,
    pub alternative: String,
    pub n: usize,
    pub unit: String,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}
