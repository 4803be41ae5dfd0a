//! Metrics of uploads.

use std::sync::LazyLock;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts};

use super::report::OUTCOMES;
use crate::metrics::{SECONDS, count, register};
use crate::nix::PUSH_ENDS;

pub(super) static UPLOAD_QUEUE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_upload_queue", "Closures to be uploaded to the cache.");
    register(IntGaugeVec::new(opts, &["state"]))
});

/// What became of closures that were uploaded; a closure that is tried again counts again.
pub(super) static UPLOADS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_uploads_total", "Uploads of closures to the cache.");
    register(IntCounterVec::new(opts, &["outcome"]))
});

/// Seconds of one push of up to 64 closures.
pub(crate) static UPLOAD_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds of one push of closures to the cache.";
    let opts = HistogramOpts::new("nixcsi_upload_seconds", help).buckets(SECONDS.to_vec());
    register(HistogramVec::new(opts, &["outcome"]))
});

pub(super) static UPLOADS_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Closures that the upload queue had no room for.";
    register(IntCounter::new("nixcsi_uploads_dropped_total", help))
});

/// How the last push ended: the one that is 1.
pub(super) static LAST_UPLOAD: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "How the last push to the cache ended; none: there was none yet.";
    register(IntGaugeVec::new(Opts::new("nixcsi_cache_last_upload", help), &["end"]))
});

/// `end` is one of [`PUSH_ENDS`].
pub(crate) fn show_last_upload(end: &str) {
    for known in PUSH_ENDS {
        LAST_UPLOAD.with_label_values(&[known]).set(i64::from(known == end));
    }
}

pub(super) fn show_uploads(waiting: usize, sending: usize, dead: usize) {
    for (state, n) in [("waiting", waiting), ("sending", sending), ("dead", dead)] {
        UPLOAD_QUEUE.with_label_values(&[state]).set(count(n));
    }
}

/// Registers also what is shown only once it is known.
pub(in crate::actors) fn register_all() {
    show_all();
    show_last_upload("none");
    LazyLock::force(&UPLOAD_SECONDS);
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub(in crate::actors) fn show_all() {
    for outcome in OUTCOMES {
        UPLOADS.with_label_values(&[outcome]);
    }
    show_uploads(0, 0, 0);
    LazyLock::force(&UPLOADS_DROPPED);
}
