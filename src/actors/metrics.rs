//! Metrics of what the actors do. The framework's own are in `core::metrics`.

use std::sync::LazyLock;

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use crate::metrics::register;
use crate::model::Refusal;
use crate::nix::{PUSH_ENDS, Stage};

/// Seconds; a warm publish takes fractions of a millisecond, a build may take an hour.
pub(super) const BUCKETS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
];

/// Seconds of one publish, by source and outcome.
pub static PUBLISH_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds from a publish's first call until it was mounted or failed.";
    let opts = HistogramOpts::new("nixcsi_publish_seconds", help).buckets(BUCKETS.to_vec());
    register(HistogramVec::new(opts, &["source", "outcome"]))
});

/// Seconds of one realisation, by outcome.
pub static REALISE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds of one evaluation, fetch and build.";
    let opts = HistogramOpts::new("nixcsi_realise_seconds", help).buckets(BUCKETS.to_vec());
    register(HistogramVec::new(opts, &["source", "outcome"]))
});

/// Seconds that realisations spent in one stage.
pub static STAGE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds of one stage of a realisation.";
    let opts = HistogramOpts::new("nixcsi_build_stage_seconds", help).buckets(BUCKETS.to_vec());
    register(HistogramVec::new(opts, &["stage"]))
});

pub static BUILDS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_builds", "Realisations by stage.");
    register(IntGaugeVec::new(opts, &["stage"]))
});

/// Of all realisations under way, as far as Nix has planned.
pub static PROGRESS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Derivations to build and bytes to fetch of what is under way.";
    let opts = Opts::new("nixcsi_build_progress", help);
    register(IntGaugeVec::new(opts, &["unit", "state"]))
});

pub static FAILURES_REMEMBERED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Requests that failed and are not tried again yet.";
    register(IntGauge::new("nixcsi_build_failures_remembered", help))
});

pub static SUBSTITUTERS_DOWN: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Substituters that did not answer when they were asked last.";
    register(IntGauge::new("nixcsi_substituters_down", help))
});

pub static VOLUMES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register(IntGaugeVec::new(Opts::new("nixcsi_volumes", "Volumes by access."), &["access"]))
});

pub static VIEW_PATHS_REPLACED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Store paths found replaced below a mounted view.";
    register(IntCounter::new("nixcsi_view_paths_replaced_total", help))
});

pub static UNREADABLE_RECORDS: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Volume records found unreadable; each is kept.";
    register(IntCounter::new("nixcsi_unreadable_records_total", help))
});

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

/// What became of the driver's registration with the kubelet.
pub static REGISTRATIONS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_registrations_total", "What the kubelet made of the driver.");
    register(IntCounterVec::new(opts, &["outcome"]))
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

pub static UPLOAD_QUEUE: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_upload_queue", "Closures to be uploaded to the cache.");
    register(IntGaugeVec::new(opts, &["state"]))
});

/// What became of closures that were uploaded; a closure that is tried again counts again.
pub static UPLOADS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_uploads_total", "Uploads of closures to the cache.");
    register(IntCounterVec::new(opts, &["outcome"]))
});

/// Seconds of one push of up to 64 closures.
pub static UPLOAD_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds of one push of closures to the cache.";
    let opts = HistogramOpts::new("nixcsi_upload_seconds", help).buckets(BUCKETS.to_vec());
    register(HistogramVec::new(opts, &["outcome"]))
});

pub static UPLOADS_DROPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Closures that the upload queue had no room for.";
    register(IntCounter::new("nixcsi_uploads_dropped_total", help))
});

/// How the last push ended: the one that is 1.
pub static LAST_UPLOAD: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "How the last push to the cache ended; none: there was none yet.";
    register(IntGaugeVec::new(Opts::new("nixcsi_cache_last_upload", help), &["end"]))
});

/// `end` is one of [`PUSH_ENDS`].
pub fn show_last_upload(end: &str) {
    for known in PUSH_ENDS {
        LAST_UPLOAD.with_label_values(&[known]).set(i64::from(known == end));
    }
}

pub fn show_uploads(waiting: usize, sending: usize, dead: usize) {
    for (state, count) in [("waiting", waiting), ("sending", sending), ("dead", dead)] {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        UPLOAD_QUEUE.with_label_values(&[state]).set(count);
    }
}

/// Builders of the cache, by whether they are in the machines file.
pub static BUILDERS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_builders", "Builders that the cache knows, by state.");
    register(IntGaugeVec::new(opts, &["state"]))
});

pub static REGISTRY_WRITES: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Times that the machines file was written.";
    register(IntCounter::new("nixcsi_registry_writes_total", help))
});

pub static REGISTRY_WATCHES_LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Times that the watch of the builders' pods broke.";
    register(IntCounter::new("nixcsi_registry_watch_lost_total", help))
});

pub static KEPT: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_kept", "Sources that the node keeps warm, by state.");
    register(IntGaugeVec::new(opts, &["state"]))
});

pub static KEEP_FAILURES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Failed tries to keep a source warm, by reason.";
    register(IntCounterVec::new(Opts::new("nixcsi_keep_failures_total", help), &["reason"]))
});

pub fn show_kept(count: impl Fn(&str) -> usize) {
    for state in super::keeper::STATES {
        let count = i64::try_from(count(state)).unwrap_or(i64::MAX);
        KEPT.with_label_values(&[state]).set(count);
    }
}

/// As [`show_all`], of what the cache alone has.
pub fn show_registry() {
    for state in super::registry::BuilderState::ALL {
        BUILDERS.with_label_values(&[state.as_str()]);
    }
    LazyLock::force(&REGISTRY_WRITES);
    LazyLock::force(&REGISTRY_WATCHES_LOST);
}

/// Registers all that a node or a cache may have.
pub fn register_all() {
    super::core::register_metrics();
    super::gc::metrics::register_all();
    show_all();
    show_registry();
    show_last_upload("none");
    for histogram in [&PUBLISH_SECONDS, &REALISE_SECONDS, &STAGE_SECONDS, &UPLOAD_SECONDS] {
        LazyLock::force(histogram);
    }
    for gauge in [&PROGRESS, &VOLUMES, &CHILD_UP, &CHILDREN_RETIRED] {
        LazyLock::force(gauge);
    }
    for counter in [&CHILD_EXITS, &CHILD_RENEWALS, &KEEP_FAILURES] {
        LazyLock::force(counter);
    }
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub fn show_all() {
    super::gc::metrics::show_all();
    for stage in Stage::ALL {
        BUILDS.with_label_values(&[stage.as_str()]);
    }
    for outcome in ["registered", "refused", "lost"] {
        REGISTRATIONS.with_label_values(&[outcome]);
    }
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
    for outcome in super::uploads::OUTCOMES {
        UPLOADS.with_label_values(&[outcome]);
    }
    show_uploads(0, 0, 0);
    show_kept(|_| 0);
    LazyLock::force(&UPLOADS_DROPPED);
    LazyLock::force(&EVENTS_QUEUED);
    LazyLock::force(&PODS);
    LazyLock::force(&WATCHES_LOST);
    LazyLock::force(&SWEPT);
    LazyLock::force(&FAILURES_REMEMBERED);
    LazyLock::force(&SUBSTITUTERS_DOWN);
    LazyLock::force(&VIEW_PATHS_REPLACED);
    LazyLock::force(&UNREADABLE_RECORDS);
}
