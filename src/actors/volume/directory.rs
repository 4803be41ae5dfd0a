//! Finding a volume's actor: read by everybody, and but for a volume's first message without a
//! question to anybody.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Addr, Handler, Message};
use dashmap::DashMap;

use super::VolumeError;
use super::actor::{Publish, Unpublish, VolumeActor};
use super::effects::blocking;
use super::machine::Request;
use super::observe::{Stats, Status, VolumeStats, VolumeStatus};
use super::record::{RecordStore, Unreadable};
use super::volumes::{Deliver, Recovered, Volumes};
use crate::actors::core::{ActorGone, ask};
use crate::model::{TargetPath, VolumeId};

/// How often a message may meet an actor that is just ending.
const MEETINGS: usize = 4;

/// A record that can't be read; the volume's id is known if the file's name is one of ours.
pub type UnreadableVolume = Unreadable;

#[derive(Clone)]
pub struct Directory {
    pub(super) open: Arc<DashMap<VolumeId, Addr<VolumeActor>>>,
    pub(super) unreadable: Arc<DashMap<PathBuf, UnreadableVolume>>,
    pub(super) volumes: Addr<Volumes>,
    pub(super) recovered: Arc<AtomicBool>,
    pub(super) records: RecordStore,
}

impl Directory {
    /// Ends when all volumes of an earlier process are known.
    pub async fn recovered(&self) -> Result<(), ActorGone> {
        if self.recovered.load(Ordering::Acquire) {
            return Ok(()); // as every publish but the first ones finds it
        }
        ask(&self.volumes, Recovered).await
    }

    /// An answer from the volumes actor itself.
    pub async fn answer(&self) -> Result<(), ActorGone> {
        ask(&self.volumes, Recovered).await
    }

    pub async fn publish(
        &self,
        id: &VolumeId,
        mut request: Request,
    ) -> Result<(), Arc<VolumeError>> {
        if let Some(Unreadable { path, reason, .. }) = self.unreadable_of(id).await? {
            return Err(VolumeError::UnreadableRecord { path, reason }.into());
        }
        let waits = Arc::new(());
        let secrets = request.spec.take_secrets();
        self.opened(id, Publish(request.into(), secrets, Arc::downgrade(&waits))).await?
    }

    pub async fn unpublish(&self, id: &VolumeId, at: TargetPath) -> Result<(), Arc<VolumeError>> {
        let unreadable = self.unreadable_of(id).await?;
        // The caller's word is enough to unmount; the record itself is kept for a person to read.
        if unreadable.is_some() {
            let (records, id) = (self.records.clone(), id.clone());
            blocking(move || records.set_aside(&id)).await??;
        }
        self.opened(id, Unpublish(at)).await??;
        if let Some(Unreadable { path, .. }) = unreadable {
            self.unreadable.remove(&path);
        }
        Ok(())
    }

    pub async fn stats(
        &self,
        id: &VolumeId,
        at: TargetPath,
    ) -> Result<VolumeStats, Arc<VolumeError>> {
        self.recovered().await?;
        let addr = self.open.get(id).map(|addr| addr.clone());
        let not_published = || VolumeError::NotPublished { id: id.to_string() };
        let addr = addr.ok_or_else(not_published)?;
        match ask(&addr, Stats(at)).await {
            Ok(stats) => stats,
            // It met the actor in the moment of its end, which is the volume's.
            Err(_) if !addr.connected() => Err(not_published().into()),
            Err(gone) => Err(gone.into()),
        }
    }

    /// All volumes, by id.
    pub async fn status(&self) -> Vec<VolumeStatus> {
        let addrs: Vec<_> = self.open.iter().map(|entry| entry.value().clone()).collect();
        let asked = futures::future::join_all(addrs.iter().map(|addr| ask(addr, Status))).await;
        let mut all: Vec<_> = asked.into_iter().flatten().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// Volumes whose records are kept because they could not be read.
    pub fn unreadable(&self) -> Vec<UnreadableVolume> {
        self.unreadable.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Known only when all records were read: a volume without an actor waits for that.
    async fn unreadable_of(&self, id: &VolumeId) -> Result<Option<Unreadable>, ActorGone> {
        if !self.open.contains_key(id) {
            self.recovered().await?;
        }
        let found = self.unreadable.iter().find(|entry| entry.id.as_ref() == Some(id));
        Ok(found.map(|entry| entry.value().clone()))
    }

    /// Sends to the volume's actor, opening it if need be. A message that meets an actor in the
    /// moment of its end goes to the next one.
    async fn opened<M>(&self, id: &VolumeId, message: M) -> Result<M::Result, ActorGone>
    where
        M: Message + Clone + Send + 'static,
        M::Result: Send,
        VolumeActor: Handler<M>,
    {
        let mut last = ActorGone { actor: "volume" };
        for _ in 0..MEETINGS {
            let found = self.open.get(id).map(|addr| addr.clone()).filter(Addr::connected);
            let answer = match &found {
                Some(addr) => ask(addr, message.clone()).await,
                None => ask(&self.volumes, Deliver(id.clone(), message.clone())).await?,
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(gone) => last = gone,
            }
            // It lives on, it and not its successor: the message itself made it panic, and would again.
            let asked = found.or_else(|| self.open.get(id).map(|addr| addr.clone()));
            if asked.is_some_and(|addr| addr.connected()) {
                break;
            }
        }
        Err(last)
    }
}
