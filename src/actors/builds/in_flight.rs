//! One row of the table: a realisation, and who waits for it.

use std::sync::{Arc, Mutex, MutexGuard};

use actix::Addr;

use super::build::{BuildActor, Work};
use super::messages::{BuildSummary, Realise, RealiseResult};
use crate::actors::core::Reply;
use crate::lock::lock;
use crate::model::{FetchFrom, VolumeId};
use crate::nix::{Progress, Stage};

/// Whom a realisation asks for what it fetches. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Fetches(Arc<Mutex<Whom>>);

#[derive(Default)]
pub(super) enum Whom {
    /// It does not fetch yet.
    #[default]
    Nobody,
    These(Option<FetchFrom>),
}

impl Fetches {
    /// False if an earlier life of its actor has asked others: who joined it counts on those.
    pub(super) fn begin(&self, from: &Option<FetchFrom>) -> bool {
        let mut now = self.now();
        match &*now {
            Whom::Nobody => *now = Whom::These(from.clone()),
            Whom::These(earlier) => return earlier == from,
        }
        true
    }

    fn now(&self) -> MutexGuard<'_, Whom> {
        lock(&self.0)
    }
}

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
    /// What it fetches may come from nowhere else than what is fetched for who asks.
    pub(super) fn is_for(&self, ask: &Realise) -> bool {
        let Work { source, viewer, progress, fetches, .. } = &self.work;
        let is_tenants_own = viewer.tenant == ask.viewer.tenant;
        *source == ask.source
            && viewer.digest() == ask.viewer.digest()
            && (is_tenants_own || progress.snapshot().stage == Stage::Building)
            && match &*fetches.now() {
                // It will ask whom the tenant's policy allows by then.
                Whom::Nobody => is_tenants_own,
                Whom::These(from) => *from == ask.viewer.fetch_from,
            }
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
