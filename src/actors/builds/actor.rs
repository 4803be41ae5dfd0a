//! The table of realisations in flight.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, ResponseFuture};
use tokio::sync::broadcast;
use tokio::time::{Instant, sleep};
use tracing::Span;

use super::Memory;
use super::build::{BuildActor, Cancel, Shared, Work};
use super::in_flight::{Fetches, InFlight};
use super::limits::slots;
use super::listeners::Listeners;
use super::messages::{
    Abandon, BuildEvent, BuildOf, BuildSummary, Ended, ListBuilds, Ping, Realise, RealiseResult,
    Subscribe,
};
use super::root::{Guarded, roots, sweep};
use crate::actors::core::{
    ActorGone, Backoff, Ctx, End, deferred, impl_supervised, supervise, tell,
};
use crate::actors::policy::PolicyHandle;
use crate::model::{Limits, Source, Viewer};
use crate::nix::{Nix, ProgressSink};
use crate::trace;

/// A panicking realisation is tried once more; its store paths are not lost.
const RESTART: Backoff =
    Backoff::new(Duration::from_millis(500), Duration::from_secs(5), Duration::from_secs(600), 1);
/// How often subscribers hear of progress.
const TICK: Duration = Duration::from_millis(500);
/// Changes that a slow subscriber may be behind; it then misses the oldest.
const BEHIND: usize = 256;

#[derive(Debug, Clone)]
pub struct BuildsConfig {
    /// Where roots of realisations are; below the store's `gcroots`.
    pub roots: PathBuf,
    /// Evaluations at once; the rest queues.
    pub evaluation_slots: usize,
    /// Fetches and builds at once; the rest queues.
    pub build_slots: usize,
    /// An evaluation may build what it imports, and then needs a build slot as well.
    pub evaluation_builds: bool,
    /// How long a realisation goes on that no volume waits for.
    pub cancel_grace: Duration,
    /// Says how much of that a namespace has.
    pub policy: PolicyHandle,
}

pub struct Builds {
    shared: Arc<Shared>,
    pub(super) config: BuildsConfig,
    pub(super) guarded: Guarded,
    pub(super) in_flight: HashMap<u64, InFlight>,
    /// Numbers realisations; never reused, also not by a restart of this actor.
    next: u64,
    swept: bool,
    to: Listeners,
    events: broadcast::Sender<BuildEvent>,
    ticking: bool,
}

impl_supervised!(Builds, "builds", |this| {
    // Nobody is left to tell: dropping the waiters answers them.
    for (_, lost) in this.in_flight.drain() {
        tell(&lost.build, Cancel);
    }
    this.ticking = false;
});

impl Builds {
    pub fn new(
        nix: Arc<dyn Nix>,
        memory: Arc<Memory>,
        to: Listeners,
        config: BuildsConfig,
    ) -> Self {
        let shared = Shared {
            nix,
            memory,
            evaluations: slots(config.evaluation_slots, &config.policy, Limits::evaluations),
            builds: slots(config.build_slots, &config.policy, Limits::builds),
            policy: config.policy.clone(),
            evaluation_builds: config.evaluation_builds,
        };
        Self {
            shared: Arc::new(shared),
            config,
            guarded: Guarded::default(),
            in_flight: HashMap::new(),
            next: 0,
            swept: false,
            to,
            events: broadcast::Sender::new(BEHIND),
            ticking: false,
        }
    }

    fn start(&mut self, source: Source, viewer: Viewer, ctx: &mut Ctx<Self>) -> InFlight {
        let number = self.next;
        let [root, derivation] = roots(&self.config.roots, number, &self.guarded);
        let (shared, progress, began) =
            (self.shared.clone(), ProgressSink::default(), Instant::now());
        let fetches = Fetches::default();
        let span = trace::below!("realise", ?source, tenant = %viewer.tenant);
        let work =
            Work { shared, source, viewer, root, derivation, progress, fetches, began, span };
        let builds = ctx.address();
        let actor = BuildActor { number, work: work.clone(), builds: builds.clone() };
        let build = supervise(actor, RESTART, move |end| {
            if let End::GaveUp { reason } = end {
                tracing::error!(%reason, "a realisation's actor gave up");
                let gone = ActorGone { actor: "build" };
                tell(&builds, Ended { number, result: Err(gone.into()) });
            }
        });
        InFlight { work, waiters: Vec::new(), build, joins: 0, told: None }
    }

    /// Cancels after the grace, unless somebody joins until then.
    fn desert(&mut self, number: u64, joins: u64, ctx: &mut Ctx<Self>) {
        ctx.effect(sleep(self.config.cancel_grace), move |this, (), _| {
            let still = this.in_flight.get(&number).filter(|one| one.joins == joins);
            if still.is_some_and(|one| one.waiters.is_empty())
                && let Some(one) = this.in_flight.remove(&number)
            {
                tell(&one.build, Cancel);
                let error = Some("cancelled: nobody waits for it any more".to_owned());
                this.tell_subscribers(BuildEvent::Ended { build: one.summary(number), error });
            }
        });
    }

    /// Subscribers that went away are no error.
    fn tell_subscribers(&self, event: BuildEvent) {
        drop(self.events.send(event));
    }

    /// Tells of progress as long as somebody listens and something is under way.
    fn tick(&mut self, ctx: &mut Ctx<Self>) {
        self.ticking = self.events.receiver_count() > 0 && !self.in_flight.is_empty();
        if !self.ticking {
            return;
        }
        let mut news = Vec::new();
        for (number, one) in &mut self.in_flight {
            let progress = one.work.progress.snapshot();
            if one.told.as_ref() != Some(&progress) {
                news.push(one.summary(*number));
                one.told = Some(progress);
            }
        }
        for summary in news {
            self.tell_subscribers(BuildEvent::Changed(summary));
        }
        ctx.effect(sleep(TICK), |this, (), ctx| this.tick(ctx));
    }

    /// A policy that allows more lets go on what waits for it.
    fn follow_policy(&self, ctx: &mut Ctx<Self>) {
        let changed = self.config.policy.changes();
        self.shared.evaluations.limits_changed();
        self.shared.builds.limits_changed();
        ctx.effect(changed, |this, (), ctx| this.follow_policy(ctx));
    }

    fn wake(&mut self, ctx: &mut Ctx<Self>) {
        if !self.ticking {
            self.tick(ctx);
        }
    }
}

impl Actor for Builds {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // Once a process: later roots belong to somebody who still holds a guard.
        if !self.swept {
            match sweep(&self.config.roots) {
                Ok(()) => self.swept = true,
                Err(e) => ctx.fail(format!("can't sweep {}: {e}", self.config.roots.display())),
            }
        }
        self.follow_policy(ctx);
    }
}

impl Handler<Realise> for Builds {
    type Result = ResponseFuture<RealiseResult>;

    fn handle(&mut self, mut ask: Realise, ctx: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        let (policy, tenant) = (&self.config.policy, &ask.viewer.tenant);
        (ask.viewer.limits, ask.viewer.fetch_from) =
            (policy.limits(tenant), policy.fetch_from(tenant));
        if let Some(same) = self.in_flight.values_mut().find(|other| other.is_for(&ask)) {
            same.waiters.push((ask.volume, reply));
            same.joins += 1;
            trace::link(&Span::current(), &same.work.span);
        } else if let Some(early) = self.shared.memory.too_early(&ask.source, &ask.viewer) {
            reply.send(Err(early));
        } else {
            let mut started = self.start(ask.source, ask.viewer, ctx);
            started.waiters.push((ask.volume, reply));
            self.in_flight.insert(self.next, started);
            self.next += 1;
            self.wake(ctx);
        }
        answer
    }
}

impl Handler<Abandon> for Builds {
    type Result = ();

    fn handle(&mut self, Abandon(volume): Abandon, ctx: &mut Ctx<Self>) {
        let mut deserted = Vec::new();
        for (number, one) in &mut self.in_flight {
            let before = one.waiters.len();
            one.waiters.retain(|(waiting, _)| *waiting != volume);
            if one.waiters.is_empty() && before > 0 {
                deserted.push((*number, one.joins));
            }
        }
        for (number, joins) in deserted {
            self.desert(number, joins, ctx);
        }
    }
}

impl Handler<Ended> for Builds {
    type Result = ();

    fn handle(&mut self, ended: Ended, _: &mut Ctx<Self>) {
        self.to.tell(&ended.result);
        let Some(one) = self.in_flight.remove(&ended.number) else {
            return;
        };
        let error = ended.result.as_ref().err().map(ToString::to_string);
        let build = one.summary(ended.number);
        for (_, waiter) in one.waiters {
            waiter.send(ended.result.clone());
        }
        self.tell_subscribers(BuildEvent::Ended { build, error });
    }
}

impl Handler<Ping> for Builds {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Ctx<Self>) {}
}

impl Handler<ListBuilds> for Builds {
    type Result = Vec<BuildSummary>;

    fn handle(&mut self, _: ListBuilds, _: &mut Ctx<Self>) -> Self::Result {
        let mut all: Vec<_> =
            self.in_flight.iter().map(|(number, one)| one.summary(*number)).collect();
        all.sort_by_key(|build| build.number);
        all
    }
}

impl Handler<BuildOf> for Builds {
    type Result = Option<BuildSummary>;

    fn handle(&mut self, BuildOf(volume): BuildOf, _: &mut Ctx<Self>) -> Self::Result {
        let waits = |one: &InFlight| one.waiters.iter().any(|(id, _)| *id == volume);
        let found = self.in_flight.iter().find(|(_, one)| waits(one));
        found.map(|(number, one)| one.summary(*number))
    }
}

impl Handler<Subscribe> for Builds {
    type Result = actix::MessageResult<Subscribe>;

    fn handle(&mut self, _: Subscribe, ctx: &mut Ctx<Self>) -> Self::Result {
        let receiver = self.events.subscribe();
        // The newcomer knows of nothing yet.
        for one in self.in_flight.values_mut() {
            one.told = None;
        }
        self.wake(ctx);
        actix::MessageResult(receiver)
    }
}
