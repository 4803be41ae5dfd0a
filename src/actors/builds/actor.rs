//! The table of realisations in flight.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, AsyncContext, Handler, Message, ResponseFuture};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::build::{BuildActor, Cancel};
use super::root::sweep;
use super::{Built, RootGuard};
use crate::actors::core::{
    ActorGone, Backoff, Ctx, End, Reply, deferred, impl_supervised, supervise, tell,
};
use crate::model::{Source, VolumeId};
use crate::nix::{Nix, NixError, Progress, ProgressSink, RealiseError};

/// A panicking realisation is tried once more; its store paths are not lost.
const RESTART: Backoff =
    Backoff::new(Duration::from_millis(500), Duration::from_secs(5), Duration::from_secs(600), 1);

pub type RealiseResult = Result<Built, Arc<RealiseError>>;

/// Realises a source, or joins the realisation of the same source that is under way.
#[derive(Message)]
#[rtype(result = "RealiseResult")]
pub struct Realise {
    pub source: Source,
    pub volume: VolumeId,
}

/// The volume no longer waits. What nobody waits for is cancelled.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Abandon(pub VolumeId);

/// What is under way, for people and progress messages.
#[derive(Message)]
#[rtype(result = "Vec<BuildSummary>")]
pub struct ListBuilds;

#[derive(Debug, Clone)]
pub struct BuildSummary {
    pub source: Source,
    pub volumes: Vec<VolumeId>,
    pub seconds: f64,
    pub progress: Progress,
}

/// A build actor's last word.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ended {
    pub(super) number: u64,
    pub(super) result: RealiseResult,
}

#[derive(Debug, Clone)]
pub struct BuildsConfig {
    /// Where roots of realisations are; below the store's `gcroots`.
    pub roots: PathBuf,
    /// Realisations at once; the rest queues.
    pub slots: usize,
}

struct InFlight {
    source: Source,
    waiters: Vec<(VolumeId, Reply<RealiseResult>)>,
    build: Addr<BuildActor>,
    progress: ProgressSink,
    began: Instant,
}

pub struct Builds {
    nix: Arc<dyn Nix>,
    config: BuildsConfig,
    slots: Arc<Semaphore>,
    in_flight: HashMap<u64, InFlight>,
    /// Numbers realisations; never reused, also not by a restart of this actor.
    next: u64,
    swept: bool,
}

impl_supervised!(Builds, "builds", |this| {
    // Nobody is left to tell: dropping the waiters answers them.
    for (_, lost) in this.in_flight.drain() {
        tell(&lost.build, Cancel);
    }
});

impl Builds {
    pub fn new(nix: Arc<dyn Nix>, config: BuildsConfig) -> Self {
        let slots = Arc::new(Semaphore::new(config.slots));
        Self { nix, config, slots, in_flight: HashMap::new(), next: 0, swept: false }
    }

    fn start(&mut self, source: Source, ctx: &mut Ctx<Self>) -> InFlight {
        let progress = ProgressSink::default();
        let number = self.next;
        let root = self.config.roots.join(number.to_string());
        let build = BuildActor {
            number,
            source: source.clone(),
            nix: self.nix.clone(),
            slots: self.slots.clone(),
            root: Arc::new(RootGuard::new(root)),
            progress: progress.clone(),
            builds: ctx.address(),
        };
        let builds = ctx.address();
        let build = supervise(build, RESTART, move |end| {
            if let End::GaveUp { reason } = end {
                tracing::error!(%reason, "a realisation's actor gave up");
                let gone = ActorGone { actor: "build" };
                tell(&builds, Ended { number, result: Err(gone.into()) });
            }
        });
        InFlight { source, waiters: Vec::new(), build, progress, began: Instant::now() }
    }
}

impl From<ActorGone> for Arc<RealiseError> {
    fn from(gone: ActorGone) -> Self {
        let error =
            NixError::Command { what: "the realisation".to_owned(), detail: gone.to_string() };
        Arc::new(error.into())
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
    }
}

impl Handler<Realise> for Builds {
    type Result = ResponseFuture<RealiseResult>;

    fn handle(&mut self, ask: Realise, ctx: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        let same = self.in_flight.values_mut().find(|other| other.source == ask.source);
        if let Some(same) = same {
            same.waiters.push((ask.volume, reply));
        } else {
            let mut started = self.start(ask.source, ctx);
            started.waiters.push((ask.volume, reply));
            self.in_flight.insert(self.next, started);
            self.next += 1;
        }
        answer
    }
}

impl Handler<Abandon> for Builds {
    type Result = ();

    fn handle(&mut self, Abandon(volume): Abandon, _: &mut Ctx<Self>) {
        self.in_flight.retain(|_, one| {
            one.waiters.retain(|(waiting, _)| *waiting != volume);
            let wanted = !one.waiters.is_empty();
            if !wanted {
                tell(&one.build, Cancel);
            }
            wanted
        });
    }
}

impl Handler<Ended> for Builds {
    type Result = ();

    fn handle(&mut self, ended: Ended, _: &mut Ctx<Self>) {
        let Some(one) = self.in_flight.remove(&ended.number) else {
            return;
        };
        for (_, waiter) in one.waiters {
            waiter.send(ended.result.clone());
        }
    }
}

impl Handler<ListBuilds> for Builds {
    type Result = Vec<BuildSummary>;

    fn handle(&mut self, _: ListBuilds, _: &mut Ctx<Self>) -> Self::Result {
        let summary = |one: &InFlight| BuildSummary {
            source: one.source.clone(),
            volumes: one.waiters.iter().map(|(id, _)| id.clone()).collect(),
            seconds: one.began.elapsed().as_secs_f64(),
            progress: one.progress.snapshot(),
        };
        self.in_flight.values().map(summary).collect()
    }
}
