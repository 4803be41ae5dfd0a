//! The actor that opens volumes, and recovers all of them at start.
//!
//! Owns who is in the [`Directory`]; hears `Deliver` and its actors' ends. On restart it keeps the
//! directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Handler, Message, ResponseFuture};
use dashmap::DashMap;
use tracing::Instrument;

use super::VolumeError;
use super::actor::VolumeActor;
use super::claims::Claims;
use super::directory::{Directory, UnreadableVolume};
use super::effects::Hands;
use super::metrics;
use super::record::{RecordStore, Unreadable};
use super::recovery::{Found, recover};
use crate::actors::core::{ActorGone, Backoff, Ctx, End, ask, impl_supervised, supervise, tell};
use crate::actors::events::EventRecorder;
use crate::actors::policy::Access;
use crate::actors::resolve::Resolver;
use crate::model::VolumeId;
use crate::mount::Mounts;

/// A volume never gives up: its actor knows what is mounted. One that goes on panicking answers
/// UNAVAILABLE, for itself alone.
const RESTART: Backoff = Backoff::new(
    Duration::from_millis(100),
    Duration::from_secs(10),
    Duration::from_secs(300),
    u32::MAX,
);

pub struct VolumesConfig {
    pub records: PathBuf,
    pub boot_id: Arc<str>,
    /// How long a volume is resolved that nobody asks for any more.
    pub abandon_after: Duration,
    pub access: Access,
}

pub struct Volumes {
    hands: Arc<Hands>,
    open: Arc<DashMap<VolumeId, Addr<VolumeActor>>>,
    unreadable: Arc<DashMap<PathBuf, UnreadableVolume>>,
    /// Is over, once a process: later on every volume has an actor that knows it, and what looks
    /// half-made is being made.
    recovered: Arc<AtomicBool>,
}

impl_supervised!(Volumes, "volumes", |_this| ());

/// A message for a volume whose actor is not open yet. Passed on from here, it saves its sender the
/// way back and forth between two threads.
pub(super) struct Deliver<M>(pub(super) VolumeId, pub(super) M);

impl<M: Message + 'static> Message for Deliver<M> {
    type Result = Result<M::Result, ActorGone>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Closed(VolumeId);

/// Answered when the recovery is over.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Recovered;

impl Volumes {
    /// Starts the actor; `on_end` hears when it gave up.
    pub fn start(
        config: VolumesConfig,
        mounts: Arc<dyn Mounts>,
        resolver: Resolver,
        events: Option<Addr<EventRecorder>>,
        backoff: Backoff,
        on_end: impl FnOnce(End) + 'static,
    ) -> Result<Directory, VolumeError> {
        let records = RecordStore::open(config.records)?;
        let hands = Arc::new(Hands {
            resolver,
            mounts,
            records: records.clone(),
            boot_id: config.boot_id,
            claims: Claims::default(),
            abandon_after: config.abandon_after,
            access: config.access,
            events,
        });
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
