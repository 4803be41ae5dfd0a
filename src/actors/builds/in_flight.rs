//! One row of the table: a realisation, and who waits for it.

use actix::Addr;

use super::build::{BuildActor, Work};
use super::messages::{BuildSummary, Realise, RealiseResult};
use crate::actors::core::Reply;
use crate::model::VolumeId;
use crate::nix::{Progress, Stage};

pub(super) struct InFlight {
    pub(super) work: Work,
    pub(super) waiters: Vec<(VolumeId, Reply<RealiseResult>)>,
    pub(super) build: Addr<BuildActor>,
    /// How often it was joined: a cancellation that began before the last join is none.
    pub(super) joins: u64,
    /// What subscribers know.
    pub(super) told: Option<Progress>,
}

impl InFlight {
    /// Whether who asks gets the same by waiting for this one. Another namespace's waits in that one's queue
    /// and evaluates within that one's limits: it is joined from its build on.
    pub(super) fn is_for(&self, ask: &Realise) -> bool {
        let Work { source, viewer, progress, .. } = &self.work;
        *source == ask.source
            && viewer.digest() == ask.viewer.digest()
            && (viewer.tenant == ask.viewer.tenant || progress.snapshot().stage == Stage::Building)
    }

    pub(super) fn summary(&self, number: u64) -> BuildSummary {
        BuildSummary {
            number,
            source: self.work.source.clone(),
            volumes: self.waiters.iter().map(|(id, _)| id.clone()).collect(),
            tenant: self.work.viewer.tenant.clone(),
            seconds: self.work.began.elapsed().as_secs_f64(),
            progress: self.work.progress.snapshot(),
        }
    }
}
