//! The builds actor as other rooms see it.

use actix::Addr;

use super::{BuildSummary, Builds, ListBuilds};
use crate::actors::core::{ActorGone, ask};
use crate::model::VolumeId;

/// Answers questions about realisations; an actor that is gone knows of none.
#[derive(Clone)]
pub struct BuildsHandle(pub(crate) Addr<Builds>);

impl BuildsHandle {
    /// Whether the actor answers.
    pub async fn answer(&self) -> Result<(), ActorGone> {
        ask(&self.0, ListBuilds).await.map(drop)
    }

    pub async fn list(&self) -> Vec<BuildSummary> {
        ask(&self.0, ListBuilds).await.unwrap_or_default()
    }

    /// The realisation that this volume waits for.
    pub async fn of_volume(&self, id: &VolumeId) -> Option<BuildSummary> {
        self.list().await.into_iter().find(|build| build.volumes.contains(id))
    }
}
