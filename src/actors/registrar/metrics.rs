//! Metrics of the registration with the kubelet.

use std::sync::LazyLock;

use prometheus::{IntCounterVec, IntGauge, Opts};

use crate::metrics::register;

/// What became of the driver's registration with the kubelet.
pub(super) static REGISTRATIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_registrations_total", "What the kubelet made of the driver.");
    register(IntCounterVec::new(opts, &["outcome"]))
});

/// Shown by a registrar alone: who has none is no node that lacks it.
pub(super) static REGISTERED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help =
        "Whether the kubelet has the driver registered, where the driver sees to that itself.";
    register(IntGauge::new("nixcsi_registered", help))
});

/// Registers also what is shown only once it is known.
pub(in crate::actors) fn register_all() {
    show_all();
    LazyLock::force(&REGISTERED);
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub(in crate::actors) fn show_all() {
    for outcome in ["registered", "refused", "lost"] {
        REGISTRATIONS.with_label_values(&[outcome]);
    }
}
