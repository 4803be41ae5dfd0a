//! What a realisation is at.

use tokio::time::Instant;

use super::metrics;
use crate::nix::{ProgressSink, Stage};

/// Names the stage in the progress, and counts in `nixcsi_builds` and its seconds while it lives.
pub(super) fn stage(progress: &ProgressSink, stage: Stage) -> impl Drop + use<> {
    struct Counted(prometheus::IntGauge, Stage, Instant, ProgressSink);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.dec();
            let time = self.2.elapsed();
            self.3.update(|p| p.spent.in_stage(self.1, time));
            metrics::STAGE_SECONDS
                .with_label_values(&[self.1.as_str()])
                .observe(time.as_secs_f64());
        }
    }
    let began = Instant::now();
    progress.update(|p| (p.stage, p.since) = (stage, Some(began)));
    let gauge = metrics::BUILDS.with_label_values(&[stage.as_str()]);
    gauge.inc();
    Counted(gauge, stage, began, progress.clone())
}
