//! Metrics of volumes. A warm publish looks up no label: its handles are found by its source.

use std::sync::{LazyLock, OnceLock};

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntGauge, IntGaugeVec, Opts};

use crate::actors::took::{Phase, Took};
use crate::metrics::{SECONDS, register};
use crate::model::Access;

static PUBLISH_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds from a publish's first call until it was mounted or failed.";
    let opts = HistogramOpts::new("nixcsi_publish_seconds", help).buckets(SECONDS.to_vec());
    register(HistogramVec::new(opts, &["source", "outcome", "warm"]))
});

static PHASE_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help =
        "Seconds of one phase of a publish that was mounted; those that did not happen are none.";
    let opts = HistogramOpts::new("nixcsi_publish_phase_seconds", help).buckets(SECONDS.to_vec());
    register(HistogramVec::new(opts, &["phase", "source"]))
});

static VOLUMES: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    register(IntGaugeVec::new(Opts::new("nixcsi_volumes", "Volumes by access."), &["access"]))
});

pub(super) static UNREADABLE_RECORDS: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Volume records found unreadable; each is kept.";
    register(IntCounter::new("nixcsi_unreadable_records_total", help))
});

/// Values of `warm`, by whether it was cold.
const WARM: [&str; 2] = ["yes", "no"];

struct OfSource {
    source: &'static str,
    mounted: [OnceLock<Histogram>; WARM.len()],
    phases: [OnceLock<Histogram>; Phase::ALL.len()],
}

impl OfSource {
    const fn new(source: &'static str) -> Self {
        Self {
            source,
            mounted: [const { OnceLock::new() }; WARM.len()],
            phases: [const { OnceLock::new() }; Phase::ALL.len()],
        }
    }
}

static SOURCES: [OfSource; 3] =
    [OfSource::new("storePath"), OfSource::new("flakeRef"), OfSource::new("nixExpr")];

/// The end of a publish. Of one that failed, its phases are not shown.
pub(super) fn published(source: &str, outcome: &str, seconds: f64, took: &Took) {
    let of = SOURCES.iter().find(|of| of.source == source).filter(|_| outcome == "ok");
    let warm = usize::from(took.is_cold);
    let publishes = || PUBLISH_SECONDS.with_label_values(&[source, outcome, WARM[warm]]);
    let Some(of) = of else {
        return publishes().observe(seconds);
    };
    of.mounted[warm].get_or_init(publishes).observe(seconds);
    for (phase, time) in took.phases() {
        let seen = of.phases[phase as usize]
            .get_or_init(|| PHASE_SECONDS.with_label_values(&[phase.as_str(), source]));
        seen.observe(time.as_secs_f64());
    }
}

/// One volume in `nixcsi_volumes`, until it is dropped.
pub(super) struct Counted(pub(super) Access);

static BY_ACCESS: LazyLock<[IntGauge; 2]> =
    LazyLock::new(|| ["ro", "rw"].map(|label| VOLUMES.with_label_values(&[label])));

impl Counted {
    pub(super) fn new(access: Access) -> Self {
        let this = Self(access);
        this.gauge().inc();
        this
    }

    fn gauge(&self) -> &IntGauge {
        let [ro, rw] = &*BY_ACCESS;
        match self.0 {
            Access::ReadOnly => ro,
            Access::Writable => rw,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge().dec();
    }
}

/// Registers also what is shown only once it is known.
pub(in crate::actors) fn register_all() {
    show_all();
    for histogram in [&PUBLISH_SECONDS, &PHASE_SECONDS] {
        LazyLock::force(histogram);
    }
}

/// Shows what has not happened yet as zero: an alert sees the first time only so.
pub(in crate::actors) fn show_all() {
    LazyLock::force(&UNREADABLE_RECORDS);
    LazyLock::force(&BY_ACCESS);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Source;

    #[test]
    fn each_source_has_its_handles() {
        let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";
        let all = [
            Source::StorePath(crate::model::StorePath::parse(path).unwrap()),
            Source::FlakeRef(String::new()),
            Source::NixExpr(String::new()),
        ];
        assert_eq!(all.each_ref().map(Source::key), SOURCES.each_ref().map(|of| of.source));
    }
}
