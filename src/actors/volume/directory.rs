//! Finding a volume's actor, opening it, and recovering all volumes at start.
//!
//! - [`Volumes`] owns who is in the [`Directory`]; it hears `Deliver` and its actors' ends.
//!   On restart it keeps the directory.
//! - [`Directory`] is read by everybody, without a message.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Handler, Message, ResponseFuture};
use dashmap::DashMap;
use tracing::Instrument;

use super::VolumeError;
use super::actor::{Publish, Unpublish, VolumeActor};
use super::claims::Claims;
use super::effects::{Hands, blocking};
use super::machine::Request;
use super::observe::{Stats, Status, VolumeStats, VolumeStatus};
use super::record::{RecordStore, Unreadable};
use super::recovery::{Found, recover};
use crate::actors::builds::Builds;
use crate::actors::core::{ActorGone, Backoff, Ctx, End, ask, impl_supervised, supervise, tell};
use crate::actors::metrics;
use crate::actors::views::Views;
use crate::model::{Access, TargetPath, VolumeId};
use crate::mount::Mounts;

/// A volume that panics is looked at again from its record; one that goes on panicking answers
/// UNAVAILABLE for itself alone until the next call opens it anew.
const RESTART: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(10), Duration::from_secs(300), 5);

/// How often a message may meet an actor that is just ending.
const MEETINGS: usize = 4;

pub struct VolumesConfig {
    pub records: PathBuf,
    pub boot_id: Arc<str>,
}

/// A record that can't be read; the volume's id is known if the file's name is one of ours.
pub type UnreadableVolume = Unreadable;

#[derive(Clone)]
pub struct Directory {
    open: Arc<DashMap<VolumeId, Addr<VolumeActor>>>,
    unreadable: Arc<DashMap<PathBuf, UnreadableVolume>>,
    volumes: Addr<Volumes>,
    recovered: Arc<AtomicBool>,
    records: RecordStore,
}

pub struct Volumes {
    hands: Hands,
    open: Arc<DashMap<VolumeId, Addr<VolumeActor>>>,
    unreadable: Arc<DashMap<PathBuf, UnreadableVolume>>,
    /// Is over, once a process: later on every volume has an actor that knows it, and what looks
    /// half-made is being made.
    recovered: Arc<AtomicBool>,
}

impl_supervised!(Volumes, "volumes", |_this| ());

/// A message for a volume whose actor is not open yet. Passed on from here, it saves its sender the
/// way back and forth between two threads.
struct Deliver<M>(VolumeId, M);

impl<M: Message + 'static> Message for Deliver<M> {
    type Result = Result<M::Result, ActorGone>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Closed(VolumeId);

/// Answered when the recovery is over.
#[derive(Message)]
#[rtype(result = "()")]
struct Recovered;

impl Volumes {
    /// Starts the actor; `on_end` hears when it gave up.
    pub fn start(
        config: VolumesConfig,
        mounts: Arc<dyn Mounts>,
        builds: Addr<Builds>,
        views: Addr<Views>,
        backoff: Backoff,
        on_end: impl FnOnce(End) + 'static,
    ) -> Result<Directory, VolumeError> {
        let records = RecordStore::open(config.records)?;
        let hands = Hands {
            builds,
            views,
            mounts,
            records: records.clone(),
            boot_id: config.boot_id,
            claims: Claims::default(),
        };
        let (open, unreadable) = (Arc::<DashMap<_, _>>::default(), Arc::<DashMap<_, _>>::default());
        let recovered = Arc::<AtomicBool>::default();
        let actor = Self {
            hands,
            open: open.clone(),
            unreadable: unreadable.clone(),
            recovered: recovered.clone(),
        };
        let volumes = supervise(actor, backoff, on_end);
        Ok(Directory { open, unreadable, volumes, recovered, records })
    }

    fn launch(&self, actor: VolumeActor, id: VolumeId, ctx: &mut Ctx<Self>) -> Addr<VolumeActor> {
        let (this, ended) = (ctx.address(), id.clone());
        let addr = supervise(actor, RESTART, move |_| tell(&this, Closed(ended)));
        self.open.insert(id, addr.clone());
        addr
    }
}

impl Actor for Volumes {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if self.recovered.load(Ordering::Acquire) {
            return;
        }
        // The mailbox waits: a publish must not meet a volume that is still being recovered.
        let recover = actix::fut::wrap_future::<_, Self>(recover(self.hands.clone()));
        ctx.wait(actix::ActorFutureExt::map(
            recover,
            |found, this: &mut Self, ctx: &mut Ctx<Self>| match found {
                Ok(found) => this.recovered(found, ctx),
                Err(error) => ctx.fail(format!("can't read the volumes: {error}")),
            },
        ));
    }
}

impl Volumes {
    fn recovered(&mut self, found: Found, ctx: &mut Ctx<Self>) {
        for unreadable in found.unreadable {
            let Unreadable { path, reason, .. } = &unreadable;
            tracing::error!(record = %path.display(), %reason, "unreadable record, kept");
            metrics::UNREADABLE_RECORDS.inc();
            self.unreadable.insert(path.clone(), unreadable);
        }
        for (record, lease) in found.alive {
            if !self.open.contains_key(&record.id) {
                let actor = VolumeActor::from_record(&record, lease, self.hands.clone());
                self.launch(actor, record.id, ctx);
            }
        }
        // Whoever sees this sees all of the above.
        self.recovered.store(true, Ordering::Release);
    }
}

impl<M> Handler<Deliver<M>> for Volumes
where
    M: Message + Send + 'static,
    M::Result: Send,
    VolumeActor: Handler<M>,
{
    type Result = ResponseFuture<Result<M::Result, ActorGone>>;

    fn handle(&mut self, Deliver(id, message): Deliver<M>, ctx: &mut Ctx<Self>) -> Self::Result {
        let found = self.open.get(&id).map(|addr| addr.clone()).filter(Addr::connected);
        let addr = found.unwrap_or_else(|| {
            let actor = VolumeActor::new(id.clone(), self.hands.clone());
            self.launch(actor, id, ctx)
        });
        Box::pin(async move { ask(&addr, message).await }.in_current_span())
    }
}

impl Handler<Closed> for Volumes {
    type Result = ();

    fn handle(&mut self, Closed(id): Closed, _: &mut Ctx<Self>) {
        self.open.remove_if(&id, |_, addr| !addr.connected());
    }
}

impl Handler<Recovered> for Volumes {
    type Result = ();

    fn handle(&mut self, _: Recovered, _: &mut Ctx<Self>) {}
}

impl Directory {
    /// Ends when all volumes of an earlier process are known.
    pub async fn recovered(&self) -> Result<(), ActorGone> {
        if self.recovered.load(Ordering::Acquire) {
            return Ok(()); // as every publish but the first ones finds it
        }
        ask(&self.volumes, Recovered).await
    }

    pub async fn publish(&self, id: &VolumeId, request: Request) -> Result<(), Arc<VolumeError>> {
        if let Some(Unreadable { path, reason, .. }) = self.unreadable_of(id).await? {
            return Err(VolumeError::UnreadableRecord { path, reason }.into());
        }
        self.opened(id, Publish(request)).await?
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
        let addr = self.open.get(id).map(|addr| addr.clone());
        let not_published = || VolumeError::NotPublished { id: id.to_string() };
        ask(&addr.ok_or_else(not_published)?, Stats(at)).await?
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

    /// Counts for the metrics, at scrape time.
    pub async fn count(&self) {
        let mut counts = HashMap::from([(Access::ReadOnly, 0), (Access::Writable, 0)]);
        for status in self.status().await {
            if let Some(request) = status.request {
                *counts.entry(request.spec.access).or_default() += 1;
            }
        }
        for (access, label) in [(Access::ReadOnly, "ro"), (Access::Writable, "rw")] {
            metrics::VOLUMES.with_label_values(&[label]).set(counts[&access]);
        }
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
            let answer = match found {
                Some(addr) => ask(&addr, message.clone()).await,
                None => ask(&self.volumes, Deliver(id.clone(), message.clone())).await?,
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(gone) => last = gone,
            }
        }
        Err(last)
    }
}
