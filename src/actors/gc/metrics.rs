//! Metrics of collections.

use std::sync::LazyLock;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use super::pinned::Pinned;
use super::report::Report;
use super::used::wall_clock;
use super::water::{Watermarks, free_at};
use crate::metrics::{SECONDS as BUCKETS, count, register};
use crate::nix::{Space, Stock};

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

/// As free space, so that it is in one graph with what is free.
static WATERMARK: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "What is free of the store's file system when it is as full as a mark.";
    register(IntGaugeVec::new(Opts::new("nixcsi_store_watermark", help), &["unit", "mark"]))
});

static STORE_PATHS: LazyLock<IntGauge> =
    LazyLock::new(|| register(IntGauge::new("nixcsi_store_paths", "Valid paths of the store.")));

static STORE_BYTES: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Bytes of the store's valid paths, as archives (NAR).";
    register(IntGauge::new("nixcsi_store_bytes", help))
});

static PINNED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Store paths that the last collection kept, by the first of the reasons.";
    register(IntGaugeVec::new(Opts::new("nixcsi_gc_pinned_paths", help), &["reason"]))
});

pub(super) fn show_stock(stock: Stock) {
    STORE_PATHS.set(count(stock.paths));
    STORE_BYTES.set(count(stock.bytes));
}

/// Of a collection that succeeded.
pub(super) fn show(report: &Report) {
    STUCK.set(count(report.stuck.len()));
    for (reason, paths) in report.pinned.all() {
        PINNED.with_label_values(&[reason]).set(count(paths));
    }
    for (unit, left) in [("bytes", report.left.bytes), ("inodes", report.left.inodes)] {
        LACKING.with_label_values(&[unit]).set(count(left));
    }
    LAST_SUCCESS.set(count(wall_clock()()));
}

/// Registers also what is shown only once it is known.
pub(in crate::actors) fn register_all() {
    show_all();
    for gauge in [&STORE_SPACE, &WATERMARK] {
        LazyLock::force(gauge);
    }
    for (reason, _) in Pinned::default().all() {
        PINNED.with_label_values(&[reason]);
    }
    for gauge in [&STORE_PATHS, &STORE_BYTES] {
        LazyLock::force(gauge);
    }
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

pub(super) fn show_space(space: &Space, marks: Option<Watermarks>) {
    let marks = marks.map(|marks| [("low", marks.low), ("high", marks.high)]);
    for (mark, percent) in marks.into_iter().flatten() {
        let free = free_at(percent, space);
        for (unit, n) in [("bytes", free.bytes), ("inodes", free.inodes)] {
            WATERMARK.with_label_values(&[unit, mark]).set(count(n));
        }
    }
    for (unit, state, n) in [
        ("bytes", "total", space.bytes),
        ("bytes", "free", space.free_bytes),
        ("inodes", "total", space.inodes),
        ("inodes", "free", space.free_inodes),
    ] {
        STORE_SPACE.with_label_values(&[unit, state]).set(count(n));
    }
}
