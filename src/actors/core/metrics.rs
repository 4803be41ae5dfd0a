//! The framework's own metrics, by actor kind and message type; never by volume.

use std::sync::{Arc, LazyLock};

use dashmap::DashMap;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};

use crate::metrics::register;

/// Seconds; from a mailbox hop (microseconds) to a handler that blocks its thread.
const BUCKETS: &[f64] =
    &[0.000_002, 0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0];

/// Labels of `restarted`.
pub(super) const RESTART_REASONS: [&str; 2] = ["failed", "panicked"];

struct Families {
    depth: IntGaugeVec,
    alive: IntGaugeVec,
    restarts: IntCounterVec,
    undelivered: IntCounterVec,
    queue: HistogramVec,
    handle: HistogramVec,
}

static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
    let seconds = |name: &str, help: &str| {
        let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        register(HistogramVec::new(opts, &["actor", "message"]))
    };
    let gauge =
        |name: &str, help: &str| register(IntGaugeVec::new(Opts::new(name, help), &["actor"]));
    let counter = |name: &str, help: &str, labels: &[&str]| {
        register(IntCounterVec::new(Opts::new(name, help), labels))
    };
    Families {
        depth: gauge("nixcsi_actor_mailbox_depth", "Messages sent and not yet handled."),
        alive: gauge("nixcsi_actor_alive", "Actors that run."),
        restarts: counter(
            "nixcsi_actor_restarts_total",
            "Restarts after a failure or a panic.",
            &["actor", "reason"],
        ),
        undelivered: counter(
            "nixcsi_actor_undelivered_total",
            "Events to an actor that had already ended.",
            &["actor"],
        ),
        queue: seconds("nixcsi_actor_queue_seconds", "Time a message waited in the mailbox."),
        handle: seconds("nixcsi_actor_handle_seconds", "Time a handler held its thread."),
    }
});

/// Registers them all.
pub fn register_metrics() {
    LazyLock::force(&FAMILIES);
}

/// Metrics of one actor kind.
pub(super) struct OfActor {
    pub(super) depth: IntGauge,
    pub(super) alive: IntGauge,
    pub(super) undelivered: IntCounter,
}

/// Metrics of one message type at one actor kind.
pub(super) struct OfMessage {
    pub(super) depth: IntGauge,
    pub(super) queue: Histogram,
    pub(super) handle: Histogram,
}

// Label look-ups hash and lock; a message pays for one shard look-up instead.
static ACTORS: LazyLock<DashMap<&'static str, Arc<OfActor>>> = LazyLock::new(DashMap::new);
static MESSAGES: LazyLock<DashMap<(&'static str, &'static str), Arc<OfMessage>>> =
    LazyLock::new(DashMap::new);

pub(super) fn of_actor(kind: &'static str) -> Arc<OfActor> {
    if let Some(found) = ACTORS.get(kind) {
        return found.clone();
    }
    let made = Arc::new(OfActor {
        depth: FAMILIES.depth.with_label_values(&[kind]),
        alive: FAMILIES.alive.with_label_values(&[kind]),
        undelivered: FAMILIES.undelivered.with_label_values(&[kind]),
    });
    // Counters start at zero, so that the first restart is seen as one.
    for reason in RESTART_REASONS {
        FAMILIES.restarts.with_label_values(&[kind, reason]);
    }
    ACTORS.entry(kind).or_insert(made).clone()
}

/// `message` is the type's full name; its last segment, without parameters, becomes the label.
pub(super) fn of_message(kind: &'static str, message: &'static str) -> Arc<OfMessage> {
    if let Some(found) = MESSAGES.get(&(kind, message)) {
        return found.clone();
    }
    let plain = message.split('<').next().unwrap_or(message);
    let short = plain.rsplit("::").next().unwrap_or(plain);
    let made = Arc::new(OfMessage {
        depth: of_actor(kind).depth.clone(),
        queue: FAMILIES.queue.with_label_values(&[kind, short]),
        handle: FAMILIES.handle.with_label_values(&[kind, short]),
    });
    MESSAGES.entry((kind, message)).or_insert(made).clone()
}

pub(super) fn restarted(kind: &'static str, reason: &str) {
    FAMILIES.restarts.with_label_values(&[kind, reason]).inc();
}

#[cfg(test)]
pub(super) fn restarts(kind: &str, reason: &str) -> u64 {
    FAMILIES.restarts.with_label_values(&[kind, reason]).get()
}
