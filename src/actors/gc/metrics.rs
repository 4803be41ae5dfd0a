//! Metrics of collections.

use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use super::report::Report;
use super::used::wall_clock;
use crate::actors::metrics::BUCKETS;
use crate::metrics::register;
use crate::nix::Space;

/// Collections, by what they came to.
pub(super) static CYCLES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_gc_cycles_total", "Garbage collections.");
    register(IntCounterVec::new(opts, &["outcome"]))
});

/// Seconds of one collection.
pub(super) static SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let opts = HistogramOpts::new("nixcsi_gc_seconds", "Seconds of one garbage collection.");
    register(Histogram::with_opts(opts.buckets(BUCKETS.to_vec())))
});

pub(super) static DELETED: LazyLock<IntCounter> = LazyLock::new(|| {
    register(IntCounter::new("nixcsi_gc_deleted_paths_total", "Store paths deleted."))
});

pub(super) static FREED: LazyLock<IntCounter> = LazyLock::new(|| {
    register(IntCounter::new("nixcsi_gc_freed_bytes_total", "Bytes given back by deletions."))
});

/// Seconds since 1970.
pub(super) static LAST_SUCCESS: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "When a garbage collection succeeded last, in seconds since 1970.";
    register(IntGauge::new("nixcsi_gc_last_success_timestamp_seconds", help))
});

pub(super) static LEAKED_ROOTS: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "GC roots of nothing that were found and removed.";
    register(IntCounter::new("nixcsi_gc_leaked_roots_total", help))
});

pub(super) static STUCK: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Store paths that the last collection could not delete.";
    register(IntGauge::new("nixcsi_gc_stuck_paths", help))
});

/// What the last collection could not free, down to the low watermark.
pub(super) static LACKING: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "What the last collection could not give back, down to the low watermark.";
    register(IntGaugeVec::new(Opts::new("nixcsi_gc_lacking", help), &["unit"]))
});

pub(super) static STORE_SPACE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_store_space", "The store's file system.");
    register(IntGaugeVec::new(opts, &["unit", "state"]))
});

/// Of a collection that succeeded.
pub(super) fn show(report: &Report) {
    STUCK.set(count(report.stuck.len() as u64));
    for (unit, left) in [("bytes", report.left.bytes), ("inodes", report.left.inodes)] {
        LACKING.with_label_values(&[unit]).set(count(left));
    }
    LAST_SUCCESS.set(count(wall_clock()()));
}

/// Registers also what is shown only once it is known.
pub(in crate::actors) fn register_all() {
    show_all();
    LazyLock::force(&STORE_SPACE);
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub(in crate::actors) fn show_all() {
    for outcome in ["ok", "failed", "busy", "stalled"] {
        CYCLES.with_label_values(&[outcome]);
    }
    for unit in ["bytes", "inodes"] {
        LACKING.with_label_values(&[unit]);
    }
    LazyLock::force(&SECONDS);
    LazyLock::force(&DELETED);
    LazyLock::force(&FREED);
    LazyLock::force(&LAST_SUCCESS);
    LazyLock::force(&LEAKED_ROOTS);
    LazyLock::force(&STUCK);
}

pub(super) fn show_space(space: &Space) {
    for (unit, state, n) in [
        ("bytes", "total", space.bytes),
        ("bytes", "free", space.free_bytes),
        ("inodes", "total", space.inodes),
        ("inodes", "free", space.free_inodes),
    ] {
        STORE_SPACE.with_label_values(&[unit, state]).set(count(n));
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
