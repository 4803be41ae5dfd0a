//! The actors that hold paths: what is asked of them in a collection.

use std::time::Duration;

use actix::{Addr, Message};

use super::report::Leaked;
use super::used::Used;
use crate::actors::builds::Builds;
use crate::actors::core::{ActorGone, Supervised, ask};
use crate::actors::keeper::{Keeper, Settled};
use crate::actors::uploads::CacheUploader;
use crate::actors::views::{EvictIdle, ListViews, Views};

/// Removes roots that lie where the actor has its own and that it certainly does not have.
#[derive(Message)]
#[rtype(result = "Result<Vec<Leaked>, ActorGone>")]
pub struct SweepRoots;

/// Nobody on a cache, or for `nix-csi gc`.
#[derive(Clone, Default)]
pub struct Holders {
    pub(crate) views: Option<Addr<Views>>,
    pub(crate) builds: Option<Addr<Builds>>,
    pub(crate) uploads: Option<Addr<CacheUploader>>,
    pub(crate) keeper: Option<Addr<Keeper>>,
}

impl Holders {
    /// Roots that leaked, and are gone now.
    pub(super) async fn sweep(&self) -> Vec<Leaked> {
        let (views, builds, uploads) =
            tokio::join!(sweep(&self.views), sweep(&self.builds), sweep(&self.uploads));
        [views, builds, uploads].concat()
    }

    /// Waits until views hold what an earlier process kept.
    pub(super) async fn settle(&self) {
        if let Some(keeper) = &self.keeper {
            let _ = ask(keeper, Settled).await; // who is gone keeps nothing
        }
    }

    /// Removes views that nobody used for so long; how many there were.
    pub(super) async fn evict_idle(&self, idle: Duration) -> usize {
        match &self.views {
            Some(views) => ask(views, EvictIdle(idle)).await.and_then(|count| count).unwrap_or(0),
            None => 0,
        }
    }

    /// What is mounted is used, however long ago it was mounted.
    pub(super) async fn note_mounted(&self, used: &Used) {
        let Some(views) = &self.views else { return };
        for view in ask(views, ListViews).await.unwrap_or_default() {
            if view.users > 0 {
                used.note(&view.view.root);
            }
        }
    }
}

/// Who is gone has no roots to tell of.
async fn sweep<A>(holder: &Option<Addr<A>>) -> Vec<Leaked>
where
    A: Supervised + actix::Handler<SweepRoots>,
{
    match holder {
        Some(holder) => ask(holder, SweepRoots).await.and_then(|swept| swept).unwrap_or_default(),
        None => Vec::new(),
    }
}
