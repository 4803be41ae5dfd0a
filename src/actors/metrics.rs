//! Metrics of the actors that have few; other rooms have their own, as has the framework (`core::metrics`).

use std::sync::LazyLock;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::metrics::{count, register};
use crate::model::Refusal;

pub static CHILD_EXITS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_child_exits_total", "Exits of a supervised child process.");
    register(IntCounterVec::new(opts, &["child"]))
});

pub static CHILD_UP: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_child_up", "Whether a supervised child process serves.");
    register(IntGaugeVec::new(opts, &["child"]))
});

pub static CHILD_RENEWALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Child processes replaced by another one for a new configuration.";
    register(IntCounterVec::new(Opts::new("nixcsi_child_renewals_total", help), &["child"]))
});

pub static CHILDREN_RETIRED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Replaced child processes that finish what they had begun.";
    register(IntGaugeVec::new(Opts::new("nixcsi_children_retired", help), &["child"]))
});

pub static CONFIG_WRITES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Files for daemons written anew from mounted configuration.";
    register(IntCounterVec::new(Opts::new("nixcsi_config_writes_total", help), &["kind"]))
});

pub static CONFIG_REFUSED: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Mounted configuration that can't be used; what was good last stays.";
    register(IntGaugeVec::new(Opts::new("nixcsi_config_refused", help), &["kind"]))
});

/// What the policy refused.
pub static POLICY_REFUSALS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_policy_refusals_total", "Volumes that the policy refused.");
    register(IntCounterVec::new(opts, &["what"]))
});

/// What became of Events on pods.
pub static EVENTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_events_total", "Events on pods.");
    register(IntCounterVec::new(opts, &["reason", "outcome"]))
});

pub static EVENTS_QUEUED: LazyLock<IntGauge> = LazyLock::new(|| {
    register(IntGauge::new("nixcsi_events_queued", "Events that wait to be posted."))
});

/// Pods of the node, as far as the watch knows.
pub static PODS: LazyLock<IntGauge> = LazyLock::new(|| {
    register(IntGauge::new("nixcsi_pods_watched", "Pods of this node that the watch knows."))
});

/// Watches of the node's pods that broke.
pub static WATCHES_LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Times that the watch of the node's pods broke.";
    register(IntCounter::new("nixcsi_pod_watches_lost_total", help))
});

/// Volumes that were unpublished because their pod was gone and nobody asked.
pub static SWEPT: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Volumes unpublished for pods that are gone for good.";
    register(IntCounter::new("nixcsi_volumes_swept_total", help))
});

pub static KEPT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_kept", "Sources that the node keeps warm, by state.");
    register(IntGaugeVec::new(opts, &["state"]))
});

pub static KEEP_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Failed tries to keep a source warm, by reason.";
    register(IntCounterVec::new(Opts::new("nixcsi_keep_failures_total", help), &["reason"]))
});

pub fn show_kept(in_state: impl Fn(&str) -> usize) {
    for state in super::keeper::STATES {
        KEPT.with_label_values(&[state]).set(count(in_state(state)));
    }
}

static BUILD_INFO: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_build_info", "Always 1; what runs is in its labels.");
    register(IntGaugeVec::new(opts, &["version", "nix"]))
});

/// `nix`: its version.
pub fn show_build(nix: &str) {
    BUILD_INFO.with_label_values(&[env!("CARGO_PKG_VERSION"), nix]).set(1);
}

/// Registers all that a node or a cache may have.
pub fn register_all() {
    super::core::register_metrics();
    super::builds::metrics::register_all();
    super::gc::metrics::register_all();
    super::registrar::metrics::register_all();
    super::registry::metrics::show_all();
    super::uploads::metrics::register_all();
    super::views::metrics::register_all();
    super::volume::metrics::register_all();
    show_ours();
    for gauge in [&BUILD_INFO, &CHILD_UP, &CHILDREN_RETIRED] {
        LazyLock::force(gauge);
    }
    for counter in [&CHILD_EXITS, &CHILD_RENEWALS, &KEEP_FAILURES] {
        LazyLock::force(counter);
    }
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub fn show_all() {
    super::builds::metrics::show_all();
    super::gc::metrics::show_all();
    super::registrar::metrics::show_all();
    super::uploads::metrics::show_all();
    super::views::metrics::show_all();
    super::volume::metrics::show_all();
    show_ours();
}

/// Of those that are here, and of the store.
fn show_ours() {
    crate::nix::show_metrics();
    for reason in super::events::REASONS {
        for outcome in ["posted", "repeated", "dropped", "failed"] {
            EVENTS.with_label_values(&[reason, outcome]);
        }
    }
    for kind in super::reconciler::KINDS {
        CONFIG_WRITES.with_label_values(&[kind]);
        CONFIG_REFUSED.with_label_values(&[kind]);
    }
    for what in Refusal::KINDS {
        POLICY_REFUSALS.with_label_values(&[what]);
    }
    show_kept(|_| 0);
    LazyLock::force(&EVENTS_QUEUED);
    LazyLock::force(&PODS);
    LazyLock::force(&WATCHES_LOST);
    LazyLock::force(&SWEPT);
}
