//! From a source to a view that is held: what volumes, prefetches and the keeper have in common.

use std::sync::Arc;

use actix::Addr;
use tokio::time::Instant;

use super::builds::{Abandon, BuildsHandle, Known, Realise};
use super::core::{Shares, ask, tell};
use super::took::Took;
use super::views::{Acquire, Lease, Views};
use super::volume::VolumeError;
use crate::model::{Sight, Source, StorePath, Viewer, VolumeId};
use crate::nix::Origin;
use crate::trace;

/// A source's view, and how the closure came to be there.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub lease: Arc<Lease>,
    pub origin: Origin,
    /// Of a flake: the commit, or else the hash of its source.
    pub revision: Option<String>,
    /// What was in sight.
    pub sight: Sight,
    pub took: Took,
}

/// Who is asked. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    pub(super) builds: BuildsHandle,
    pub(super) views: Addr<Views>,
    /// Volumes that wait for their closures.
    pub(super) waiting: Shares,
}

impl Resolver {
    /// A path that is known and in the store needs no Nix; everything else is realised first.
    pub(super) async fn resolve(
        &self,
        source: Source,
        volume: VolumeId,
        viewer: Viewer,
    ) -> Result<Resolved, Arc<VolumeError>> {
        let span = trace::below!("resolve", ?source);
        trace::phase(span, Box::pin(self.resolve_now(source, volume, viewer))).await
    }

    async fn resolve_now(
        &self,
        source: Source,
        volume: VolumeId,
        viewer: Viewer,
    ) -> Result<Resolved, Arc<VolumeError>> {
        if let Some(present) = self.present(&source, &viewer).await? {
            return Ok(present);
        }
        let _share = self.waiting.enter(&viewer.tenant).map_err(VolumeError::from)?;
        let sight = viewer.sight;
        let realise = Realise { source, volume, viewer };
        let built = ask(&self.builds.builds, realise).await?.map_err(VolumeError::Realise)?;
        let root = &built.realised.root;
        // `built` holds the closure's GC root until the view has its own.
        match self.timed(root).await? {
            Some((lease, took)) => {
                let (origin, revision) = (built.realised.origin, built.revision.clone());
                Ok(Resolved { lease, origin, revision, sight, took: took.after(&built.spent) })
            }
            None => Err(VolumeError::Vanished { path: root.clone() }.into()),
        }
    }

    /// What is known and in the store. `None`: it has to be realised.
    pub(super) async fn present(
        &self,
        source: &Source,
        viewer: &Viewer,
    ) -> Result<Option<Resolved>, VolumeError> {
        let Some(Known { path, revision }) = self.known(source, viewer) else {
            return Ok(None);
        };
        let found = self.timed(&path).await?;
        let (origin, sight) = (Origin::Present, viewer.sight);
        Ok(found.map(|(lease, took)| Resolved { lease, origin, revision, sight, took }))
    }

    fn known(&self, source: &Source, viewer: &Viewer) -> Option<Known> {
        match source {
            Source::StorePath(path) => Some(Known { path: path.clone(), revision: None }),
            _ => self.builds.memory.known(source, viewer),
        }
    }

    async fn timed(&self, root: &StorePath) -> Result<Option<(Arc<Lease>, Took)>, VolumeError> {
        let began = Instant::now();
        let lease = self.acquire(root).await?;
        let took = |lease: &Arc<Lease>| Took::view(began.elapsed(), lease.was_there());
        Ok(lease.map(|lease| (lease.clone(), took(&lease))))
    }

    /// `None`: the path is not valid in the store.
    pub(super) async fn acquire(
        &self,
        root: &StorePath,
    ) -> Result<Option<Arc<Lease>>, VolumeError> {
        let acquired =
            async { ask(&self.views, Acquire(root.clone())).await?.map_err(VolumeError::View) };
        trace::phase(trace::below!("view", store_path = %root), acquired).await
    }

    /// Nobody waits any more for what was to be realised in this name.
    pub(super) fn abandon(&self, volume: VolumeId) {
        tell(&self.builds.builds, Abandon(volume));
    }
}
