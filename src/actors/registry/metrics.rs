//! Metrics of the cache's builders.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntGaugeVec, Opts};

use super::BuilderState;
use crate::metrics::register;

/// Builders of the cache, by whether they are in the machines file.
pub(super) static BUILDERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_builders", "Builders that the cache knows, by state.");
    register(IntGaugeVec::new(opts, &["state"]))
});

pub(super) static REGISTRY_WRITES: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Times that the machines file was written.";
    register(IntCounter::new("nixcsi_registry_writes_total", help))
});

pub(super) static REGISTRY_WATCHES_LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Times that the watch of the builders' pods broke.";
    register(IntCounter::new("nixcsi_registry_watch_lost_total", help))
});

static SLOTS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Builds at once that the cache's ready builders may have.";
    register(IntGaugeVec::new(Opts::new("nixcsi_builder_slots", help), &["state"]))
});

pub(super) fn show_slots(total: u32) {
    SLOTS.with_label_values(&["total"]).set(total.into());
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub(crate) fn show_all() {
    for state in BuilderState::ALL {
        BUILDERS.with_label_values(&[state.as_str()]);
    }
    show_slots(0);
    LazyLock::force(&REGISTRY_WRITES);
    LazyLock::force(&REGISTRY_WATCHES_LOST);
}
