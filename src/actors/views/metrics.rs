//! Metrics of views, and of mounts as a whole.

use std::sync::LazyLock;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts};

use crate::metrics::{count, register};
use crate::mount::MountCount;

pub(super) static VIEW_PATHS_REPLACED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Store paths found replaced below a mounted view.";
    register(IntCounter::new("nixcsi_view_paths_replaced_total", help))
});

static VIEWS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_views", "Views, by whether a volume or something else uses them.");
    register(IntGaugeVec::new(opts, &["state"]))
});

static MOUNTS: LazyLock<IntGauge> = LazyLock::new(|| {
    register(IntGauge::new("nixcsi_mounts", "Mounts in the driver's mount namespace."))
});

static MOUNTS_LIMIT: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "How many mounts a mount namespace may have (/proc/sys/fs/mount-max).";
    register(IntGauge::new("nixcsi_mounts_limit", help))
});

pub(super) fn show(used: usize, all: usize) {
    VIEWS.with_label_values(&["used"]).set(count(used));
    VIEWS.with_label_values(&["idle"]).set(count(all.saturating_sub(used)));
}

pub(super) fn show_mounts(mounts: MountCount) {
    MOUNTS.set(count(mounts.used));
    MOUNTS_LIMIT.set(count(mounts.limit));
}

/// Registers also what is shown only once it is known.
pub(in crate::actors) fn register_all() {
    show_all();
    show(0, 0);
    for gauge in [&MOUNTS, &MOUNTS_LIMIT] {
        LazyLock::force(gauge);
    }
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub(in crate::actors) fn show_all() {
    LazyLock::force(&VIEW_PATHS_REPLACED);
}
