//! The builds actor as other rooms see it.

use std::sync::Arc;

use actix::Addr;
use tokio::sync::broadcast;

use super::counts::Count;
use super::{
    BuildEvent, BuildOf, BuildSummary, Builds, ListBuilds, Memory, Ping, Remembered, Subscribe,
    metrics,
};
use crate::actors::core::{ActorGone, ask};
use crate::metrics::count;
use crate::model::{FetchFrom, Source, VolumeId};
use crate::nix::Nix;

/// Answers questions about realisations; an actor that is gone knows of none.
#[derive(Clone)]
pub struct BuildsHandle {
    pub(crate) builds: Addr<Builds>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) nix: Arc<dyn Nix>,
}

impl BuildsHandle {
    /// Whether the actor answers.
    pub async fn answer(&self) -> Result<(), ActorGone> {
        ask(&self.builds, Ping).await
    }

    pub async fn list(&self) -> Vec<BuildSummary> {
        ask(&self.builds, ListBuilds).await.unwrap_or_default()
    }

    /// The realisation that this volume waits for.
    pub async fn of_volume(&self, id: &VolumeId) -> Option<BuildSummary> {
        ask(&self.builds, BuildOf(id.clone())).await.ok().flatten()
    }

    pub async fn subscribe(&self) -> Result<broadcast::Receiver<BuildEvent>, ActorGone> {
        ask(&self.builds, Subscribe).await
    }

    /// What failed and is not tried again yet.
    pub fn failures(&self) -> Vec<Remembered> {
        self.memory.failures()
    }

    /// What is allowed and is none of the node's substituters.
    pub fn unknown_substituters(&self, from: &FetchFrom) -> Vec<String> {
        self.nix.unknown_substituters(from)
    }

    /// Counts for the metrics, at scrape time.
    pub async fn count(&self) {
        metrics::FAILURES_REMEMBERED.set(count(self.memory.failures().len()));
        metrics::SUBSTITUTERS_DOWN.set(count(self.nix.substituters_down()));
        metrics::show(&ask(&self.builds, Count).await.unwrap_or_default());
    }

    /// Lets what failed be tried again at once; how many there were.
    pub fn forgive(&self, which: impl Fn(&Source, u64) -> bool) -> usize {
        self.memory.forgive(which)
    }
}
