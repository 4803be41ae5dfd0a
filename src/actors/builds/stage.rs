//! What a realisation is at.

use tokio::time::Instant;

use crate::actors::metrics;
use crate::nix::{ProgressSink, Stage};

/// Names the stage in the progress, and counts in `nixcsi_builds` and its seconds while it lives.
pub(super) fn stage(progress: &ProgressSink, stage: Stage) -> impl Drop + use<> {
    struct Counted(prometheus::IntGauge, Stage, Instant);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.dec();
            let seconds = self.2.elapsed().as_secs_f64();
            metrics::STAGE_SECONDS.with_label_values(&[self.1.as_str()]).observe(seconds);
        }
    }
    progress.update(|p| p.stage = stage);
    let gauge = metrics::BUILDS.with_label_values(&[stage.as_str()]);
    gauge.inc();
    Counted(gauge, stage, Instant::now())
}
