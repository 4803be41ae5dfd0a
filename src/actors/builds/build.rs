//! One realisation.

use std::sync::Arc;

use actix::{Actor, ActorContext, Addr, Handler, Message};
use futures::TryFutureExt;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span};

use super::asked::{Asked, Next, present, tell_trace};
use super::in_flight::Fetches;
use super::limits;
use super::memory::Key;
use super::messages::Ended;
use super::metrics;
use super::slots::{Permit, Slots};
use super::stage::stage;
use super::{Builds, Built, Failure, Memory, RootGuard};
use crate::actors::core;
use crate::actors::core::{Ctx, impl_supervised, tell};
use crate::actors::policy::PolicyHandle;
use crate::model::{Source, StorePath, Viewer};
use crate::nix::{
    Buildable, Evaluated, Nix, NixError, ProgressSink, RealiseError, Realised, Stage, Step,
    locked_revision,
};
use crate::trace;

/// What all realisations share.
pub(super) struct Shared {
    pub(super) nix: Arc<dyn Nix>,
    pub(super) memory: Arc<Memory>,
    pub(super) evaluations: Slots,
    pub(super) builds: Slots,
    pub(super) policy: PolicyHandle,
    /// An evaluation may build, so it needs a build slot as well.
    pub(super) evaluation_builds: bool,
}

/// One realisation's work; cheap to clone for each life of its actor.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Source,
    pub(super) viewer: Viewer,
    /// Holds the result.
    pub(super) root: Arc<RootGuard>,
    /// Holds the derivation while it is built.
    pub(super) derivation: Arc<RootGuard>,
    pub(super) progress: ProgressSink,
    pub(super) fetches: Fetches,
    pub(super) began: Instant,
    /// In the trace of who asked first.
    pub(super) span: Span,
}

pub(super) struct BuildActor {
    pub(super) number: u64,
    pub(super) work: Work,
    pub(super) builds: Addr<Builds>,
}

impl_supervised!(BuildActor, "build", |_this| ());

/// Nobody waits any more: dropping the effect ends the child process.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Cancel;

impl Actor for BuildActor {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let (span, work) = (self.work.span.clone(), self.work.clone());
        ctx.effect(trace::phase(span, realise(work, self.number)), |this, result, ctx| {
            tell(&this.builds, Ended { number: this.number, result });
            ctx.stop();
        });
    }
}

async fn realise(work: Work, number: u64) -> Result<Built, Failure> {
    let (key, began, progress) = (work.source.key(), work.began, work.progress.clone());
    tracing::info!(number, source = ?work.source, tenant = %work.viewer.tenant, "realising");
    // Not on the actors' thread, which would read every line that a builder prints.
    let task = AbortOnDropHandle::new(tokio::spawn(work.run().in_current_span()));
    let result = task.await.unwrap_or_else(|panic| {
        Err(RealiseError::from(NixError::panicked("the realisation", &panic)).into())
    });
    let outcome = result.as_ref().map_or_else(|f| f.error.kind(), |_| "ok");
    let seconds = began.elapsed().as_secs_f64();
    let on = progress.read(|p| p.spent.built_on);
    metrics::realised(key, outcome, on, seconds);
    if let Ok(Built { realised: Realised { root, origin, .. }, .. }) = &result {
        tracing::info!(number, %root, ?origin, seconds, "realised");
    }
    result
}

impl Work {
    /// Evaluates and builds; what failed for good is remembered.
    async fn run(self) -> Result<Built, Failure> {
        let mut asked = Asked::of(&self.source, &self.viewer);
        let result = self.steps(&mut asked).await;
        let (memory, Asked { key, revision, derivation, viewer, .. }) =
            (&self.shared.memory, asked);
        let viewer = viewer.as_ref().unwrap_or(&self.viewer);
        match result {
            Ok(realised) => {
                // A path needs no memory of where it leads.
                if !matches!(self.source, Source::StorePath(_)) {
                    memory.learn(&self.source, viewer, key, realised.root.clone());
                }
                let derivation = derivation.map(|path| (path, self.derivation));
                let spent = self.progress.read(|p| p.spent);
                Ok(Built { realised, revision, root: self.root, spent, derivation })
            }
            Err(early @ Failure { again_in: Some(_), .. }) => Err(early),
            Err(failure) => {
                let failure = Failure { after: self.began.elapsed(), ..failure };
                memory.learn_failure(key.under(viewer), &self.source, failure.clone());
                Err(failure)
            }
        }
    }

    /// `asked` becomes what a mutable reference is locked to, and learns what it evaluates to.
    async fn steps(&self, asked: &mut Asked) -> Result<Realised, Failure> {
        let buildable = match &self.source {
            Source::StorePath(path) => Buildable::Path(path.clone()),
            Source::FlakeRef(_) | Source::NixExpr(_) => match self.instantiate(asked).await? {
                Next::Done(realised) => return Ok(realised),
                Next::Build(buildable) => buildable,
            },
        };
        let slot = Arc::new(self.slot(&self.shared.builds, Stage::QueuedBuild).await);
        let _building = stage(&self.progress, Stage::Building);
        let viewer = self.fetcher(asked).await?;
        let (root, progress) = (self.root.path().to_owned(), self.progress.clone());
        let span = trace::below!("build");
        let realised = self.shared.nix.realise((buildable, viewer), root, progress, slot);
        Ok(trace::phase(span.clone(), realised.inspect_ok(|made| tell_trace(&span, made))).await?)
    }

    /// With whom the policy allows to ask now, after all queues.
    async fn fetcher(&self, asked: &mut Asked) -> Result<Viewer, Failure> {
        let viewer = self.viewer(asked).await?;
        let fetch_from = self.shared.policy.fetch_from(&viewer.tenant);
        if !self.fetches.begin(&fetch_from) {
            let cause = "whom the policy lets it be fetched from has changed".to_owned();
            return Err(RealiseError::Temporary { step: Step::Fetch, cause }.into());
        }
        let viewer = Viewer { fetch_from, ..viewer };
        asked.viewer = Some(viewer.clone());
        Ok(viewer)
    }

    async fn instantiate(&self, asked: &mut Asked) -> Result<Next, Failure> {
        if let Some(path) = self.shared.memory.resolved(&asked.key)
            && self.is_valid(&path).await?
        {
            return Ok(present(path));
        }
        let _build = if self.shared.evaluation_builds {
            Some(self.slot(&self.shared.builds, Stage::QueuedBuild).await)
        } else {
            None
        };
        let _slot = self.slot(&self.shared.evaluations, Stage::QueuedEvaluation).await;
        let _evaluating = stage(&self.progress, Stage::Evaluating);
        if self.lock(asked).await? {
            let viewer = asked.viewer.as_ref().unwrap_or(&self.viewer);
            if let Some(early) = self.shared.memory.too_early_for(&asked.key.under(viewer)) {
                return Err(early);
            }
            if let Some(path) = self.shared.memory.resolved(&asked.key)
                && self.is_valid(&path).await?
            {
                return Ok(present(path));
            }
        }
        let (root, progress) = (self.derivation.path().to_owned(), self.progress.clone());
        let source = asked.source.clone();
        let evaluated = self.shared.nix.evaluate(source, self.viewer(asked).await?, root, progress);
        let Evaluated { buildable, path } =
            trace::phase(trace::below!("evaluate"), evaluated).await?;
        if let Buildable::Output { derivation, .. } = &buildable {
            asked.derivation = Some(derivation.clone());
        }
        match path {
            Some(path) if self.is_valid(&path).await? => Ok(present(path)),
            _ => Ok(Next::Build(buildable)),
        }
    }

    /// Finds out what a mutable reference names; whether it was one.
    async fn lock(&self, asked: &mut Asked) -> Result<bool, Failure> {
        let Source::FlakeRef(reference) = &self.source else {
            return Ok(false);
        };
        if locked_revision(reference).is_some() {
            return Ok(false);
        }
        let memory = &self.shared.memory;
        let lock = if let Some(lock) = memory.lock_of(reference, &self.viewer) {
            lock
        } else {
            let (viewer, progress) = (self.viewer(asked).await?, self.progress.clone());
            let lock = self.shared.nix.lock(reference.clone(), viewer, progress);
            let lock = trace::phase(trace::below!("lock"), lock).await;
            match (lock, memory.last_lock_of(reference, &self.viewer)) {
                (Ok(lock), _) => {
                    memory.learn_lock(reference, &self.viewer, lock.clone());
                    lock
                }
                // An old meaning is better than none: a pod that comes back must not need the forge.
                (Err(error @ RealiseError::Temporary { .. }), Some(last)) => {
                    tracing::warn!(source = ?self.source, %error, "going on with what it named last");
                    last
                }
                (Err(error), _) => return Err(error.into()),
            }
        };
        let source = Source::FlakeRef(lock.reference.clone());
        let (key, revision) = (Key::locked(&lock, &self.viewer), lock.revision);
        let viewer = asked.viewer.take();
        *asked = Asked { source, key, revision, derivation: None, viewer };
        Ok(true)
    }

    /// With what its pod's tokens are exchanged for, once, and the limits at that time: the policy may have
    /// changed since it waits.
    async fn viewer(&self, asked: &mut Asked) -> Result<Viewer, Failure> {
        if let Some(viewer) = &asked.viewer {
            return Ok(viewer.clone());
        }
        let (policy, tenant) = (&self.shared.policy, &self.viewer.tenant);
        let (limits, fetch_from) = (policy.limits(tenant), policy.fetch_from(tenant));
        let mut viewer = Viewer { limits, fetch_from, ..self.viewer.clone() };
        if let (None, Some(tokens)) = (&viewer.secret, viewer.tokens.clone()) {
            viewer.secret = self.shared.nix.exchange(tokens).await?;
        }
        asked.viewer = Some(viewer.clone());
        Ok(viewer)
    }

    /// Whether the result is in the store; it then has its root.
    async fn is_valid(&self, path: &StorePath) -> Result<bool, Failure> {
        let (nix, path, root) = (self.shared.nix.clone(), path.clone(), self.root.clone());
        let placed = core::blocking(move || nix.root_if_valid(&path, root.path())).await;
        let placed =
            placed.unwrap_or_else(|panic| Err(NixError::panicked("placing a root", &panic)));
        Ok(placed.map_err(RealiseError::from)?)
    }

    /// Waits for a slot, with the place in the queue in the progress.
    async fn slot(&self, slots: &Slots, queued: Stage) -> Permit {
        let _queued = stage(&self.progress, queued);
        let tell = |place| {
            let text = limits::waiting(&self.shared.policy, &self.viewer.tenant, queued, place);
            self.progress.update(|p| p.current = text);
        };
        let admitted = slots.enter(self.viewer.tenant.clone()).admitted(tell);
        trace::waiting(trace::below!("queue", stage = queued.as_str()), admitted).await
    }
}

impl Handler<Cancel> for BuildActor {
    type Result = ();

    fn handle(&mut self, _: Cancel, ctx: &mut Ctx<Self>) {
        tracing::info!(source = ?self.work.source, "realisation cancelled: nobody waits for it");
        ctx.stop();
    }
}
