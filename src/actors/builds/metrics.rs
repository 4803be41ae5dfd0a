//! Metrics of realisations.

use std::sync::LazyLock;

use prometheus::{HistogramOpts, HistogramVec, IntGauge, IntGaugeVec, Opts};

use super::counts::Counts;
use crate::metrics::{SECONDS, count, register};
use crate::nix::{BuiltOn, Stage};

static REALISE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds of one evaluation, fetch and build; where it was built, if it was.";
    let opts = HistogramOpts::new("nixcsi_realise_seconds", help).buckets(SECONDS.to_vec());
    register(HistogramVec::new(opts, &["source", "outcome", "where"]))
});

/// Seconds that realisations spent in one stage.
pub(super) static STAGE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds of one stage of a realisation.";
    let opts = HistogramOpts::new("nixcsi_build_stage_seconds", help).buckets(SECONDS.to_vec());
    register(HistogramVec::new(opts, &["stage"]))
});

pub(super) static BUILDS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let opts = Opts::new("nixcsi_builds", "Realisations by stage.");
    register(IntGaugeVec::new(opts, &["stage"]))
});

/// Of all realisations under way, as far as Nix has planned.
pub(super) static PROGRESS: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Derivations to build and bytes to fetch of what is under way.";
    let opts = Opts::new("nixcsi_build_progress", help);
    register(IntGaugeVec::new(opts, &["unit", "state"]))
});

pub(super) static FAILURES_REMEMBERED: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Requests that failed and are not tried again yet.";
    register(IntGauge::new("nixcsi_build_failures_remembered", help))
});

pub(super) static SUBSTITUTERS_DOWN: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Substituters that did not answer when they were asked last.";
    register(IntGauge::new("nixcsi_substituters_down", help))
});

static OLDEST: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "How long the realisation that has been in a stage for the longest has been in it.";
    register(IntGaugeVec::new(Opts::new("nixcsi_build_oldest_seconds", help), &["stage"]))
});

/// The end of a realisation.
pub(super) fn realised(source: &str, outcome: &str, on: Option<BuiltOn>, seconds: f64) {
    REALISE_SECONDS.with_label_values(&[source, outcome, BuiltOn::as_str(on)]).observe(seconds);
}

pub(super) fn show(counts: &Counts) {
    let [derivations, bytes] = [counts.derivations, counts.bytes];
    for (unit, state, sum) in [
        ("derivations", "done", derivations.0),
        ("derivations", "expected", derivations.1),
        ("bytes", "done", bytes.0),
        ("bytes", "expected", bytes.1),
    ] {
        PROGRESS.with_label_values(&[unit, state]).set(count(sum));
    }
    for (stage, oldest) in Stage::ALL.into_iter().zip(counts.oldest) {
        OLDEST.with_label_values(&[stage.as_str()]).set(count(oldest.as_secs()));
    }
}

/// Registers also what is shown only once it is known.
pub(in crate::actors) fn register_all() {
    show_all();
    for histogram in [&REALISE_SECONDS, &STAGE_SECONDS] {
        LazyLock::force(histogram);
    }
    LazyLock::force(&PROGRESS);
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub(in crate::actors) fn show_all() {
    for stage in Stage::ALL {
        BUILDS.with_label_values(&[stage.as_str()]);
        OLDEST.with_label_values(&[stage.as_str()]);
    }
    LazyLock::force(&FAILURES_REMEMBERED);
    LazyLock::force(&SUBSTITUTERS_DOWN);
}
