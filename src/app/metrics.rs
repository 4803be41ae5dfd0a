//! All metrics, for who lists them.

use crate::metrics::Family;
use crate::{actors, grpc, health, metrics, nix, relay, telemetry};

/// What a node or a cache may have, by name, also what only some of them have and what has no samples yet.
pub fn metric_families() -> Vec<Family> {
    actors::metrics::register_all();
    nix::register_metrics();
    grpc::register_metrics();
    health::register_metrics();
    relay::register_metrics();
    telemetry::register_metrics();
    metrics::families()
}
