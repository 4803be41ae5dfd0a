//! The keeper as other rooms see it, and prefetches.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;

use super::{Keep, KeepError, Keeper, KeptReport, ListKept, Release, ReleaseError};
use crate::actors::core::ask;
use crate::actors::resolve::{Resolved, Resolver};
use crate::actors::volume::VolumeError;
use crate::model::{Source, Viewer, VolumeId};
use crate::trace;

#[derive(Clone)]
pub struct KeeperHandle {
    pub(crate) keeper: Addr<Keeper>,
    pub(crate) resolver: Resolver,
}

/// What a prefetch has made.
#[derive(Debug)]
pub struct Prefetched {
    pub resolved: Resolved,
    /// Seconds since the epoch.
    pub kept_until: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum PrefetchError {
    #[error(transparent)]
    Resolve(#[from] Arc<VolumeError>),
    #[error(transparent)]
    Keep(#[from] KeepError),
}

impl KeeperHandle {
    /// Realises and presents a source; without `keep` its view then idles as any other. `id` is the
    /// caller's own, for the progress. Dropping the future is no longer waiting.
    pub async fn prefetch(
        &self,
        source: Source,
        id: VolumeId,
        keep: Option<Duration>,
    ) -> Result<Prefetched, PrefetchError> {
        let _waits = Waits { resolver: &self.resolver, id: id.clone() };
        let span = trace::below!("prefetch", ?source, volume = %id);
        let resolved = self.resolver.resolve(source.clone(), id, Viewer::local());
        let resolved = trace::phase(span, resolved).await?;
        let kept_until = match keep {
            Some(keep) => {
                let keep = Keep { source, resolved: resolved.clone(), keep };
                Some(ask(&self.keeper, keep).await.map_err(KeepError::from)??)
            }
            None => None,
        };
        Ok(Prefetched { resolved, kept_until })
    }

    /// Lets go of what a prefetch keeps.
    pub async fn release(&self, text: String) -> Result<(), ReleaseError> {
        ask(&self.keeper, Release(text)).await?
    }

    pub async fn list(&self) -> KeptReport {
        ask(&self.keeper, ListKept).await.unwrap_or_default()
    }
}

/// Its end tells the builds.
struct Waits<'a> {
    resolver: &'a Resolver,
    id: VolumeId,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.resolver.abandon(self.id.clone());
    }
}
