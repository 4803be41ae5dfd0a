//! The actor of one volume.
//!
//! - Owns: the volume's state machine and its record on disk.
//! - Hears: [`Publish`], [`Unpublish`], the questions in `observe`, and the ends of its own
//!   effects.
//! - Tells: builds that it no longer waits.
//! - Ends when the volume is gone. On restart: the record says what is mounted.

use std::sync::{Arc, Weak};

use actix::{Actor, ActorContext, Handler, Message, ResponseFuture};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::Span;

use super::VolumeError;
use super::effects::{Effects, Hands};
use super::machine::{Effect, Event, Machine, Request, State};
use super::metrics::Counted;
use super::record::Record;
use crate::actors::core::{Ctx, Reply, answer_all, deferred, impl_supervised};
use crate::actors::policy::Admitted;
use crate::actors::resolve::Resolved;
use crate::actors::took::{Phase, Took};
use crate::actors::views::Lease;
use crate::model::{Secrets, Sight, TargetPath, VolumeId};
use crate::nix::Origin;
use crate::trace;

pub(super) type Answer = Result<(), Arc<VolumeError>>;
type Waiter = Reply<Answer>;

/// What was given to fetch with is apart: nobody else keeps it. The last part lives as long as the caller waits.
#[derive(Message, Clone)]
#[rtype(result = "Answer")]
pub struct Publish(pub Arc<Request>, pub Secrets, pub Weak<()>);

/// Who is answered when a publish ends. (actix holds on to a reply whose asker has gone.)
pub(super) struct Caller {
    reply: Waiter,
    waits: Weak<()>,
}

#[derive(Message, Clone)]
#[rtype(result = "Answer")]
pub struct Unpublish(pub TargetPath);

pub struct VolumeActor {
    pub(super) id: VolumeId,
    pub(super) effects: Effects,
    pub(super) machine: Machine<Resolved, Caller, Waiter>,
    /// The target that this volume has claimed.
    claimed: Option<TargetPath>,
    /// It counts for its namespace.
    admitted: Option<Admitted>,
    /// What is being published, or was last.
    pub(super) asked: Option<Arc<Request>>,
    /// For the next resolution: of the latest call, and gone with it.
    secrets: Secrets,
    /// Its source, for the metrics.
    pub(super) source: &'static str,
    /// Since when a publish is at work; a repeated one, which only looks, is none.
    pub(super) began: Option<Instant>,
    pub(super) took: Took,
    /// As long as there is something of it.
    pub(super) counted: Option<Counted>,
    /// When a publish came in last, or was seen to wait.
    last_call: Instant,
    /// Numbers the looks for a volume that nobody waits for; the last one counts.
    watches: u64,
    pub(super) published_at: i64,
    /// Of the publish that is at work; others join it.
    pub(super) working: Span,
}

impl_supervised!(VolumeActor, "volume", |this| {
    // What was mounted stays known; a publish checks it before it relies on it.
    let known = match this.machine.state() {
        State::Mounted { request, view, verified }
        | State::Checking { request, view, verified, .. } => {
            Some((request.clone(), view.clone(), *verified))
        }
        State::Presenting { request, view, .. }
        | State::Removing { volume: Some((request, view)), .. } => {
            Some((request.clone(), view.clone(), false))
        }
        State::Absent | State::Resolving { .. } | State::Removing { volume: None, .. } => None,
    };
    if known.is_none() {
        this.release();
    }
    this.machine = known.map_or_else(Machine::new, |(r, v, w)| Machine::recovered(r, v, w));
    this.recount();
});

impl VolumeActor {
    pub(super) fn new(id: VolumeId, hands: Arc<Hands>) -> Self {
        Self {
            effects: Effects { hands, id: id.clone(), turn: Arc::new(Mutex::new(())) },
            id,
            machine: Machine::new(),
            claimed: None,
            admitted: None,
            asked: None,
            secrets: Secrets::default(),
            source: "none",
            began: None,
            took: Took::default(),
            counted: None,
            last_call: Instant::now(),
            watches: 0,
            published_at: jiff::Timestamp::now().as_second(),
            working: Span::none(),
        }
    }

    pub(super) fn from_record(record: &Record, lease: Arc<Lease>, hands: Arc<Hands>) -> Self {
        let revision = record.revision.clone();
        // With the most that it can have been.
        let (origin, sight) = (Origin::Present, Sight::Store);
        let resolved = Resolved { lease, origin, revision, sight, took: Took::default() };
        // Two records of one target can't be: the first was written by a volume that claimed it.
        let _ = hands.claims.claim(&record.target, &record.id);
        let request = Arc::new(record.request());
        Self {
            counted: Some(Counted::new(request.spec.access)),
            admitted: hands.access.policy.count(&request.spec),
            source: request.spec.source.key(),
            machine: Machine::recovered(request, resolved, true),
            claimed: Some(record.target.clone()),
            published_at: record.published_at,
            ..Self::new(record.id.clone(), hands)
        }
    }

    fn on(&mut self, event: Event<Resolved, Caller, Waiter>, ctx: &mut Ctx<Self>) {
        let effects = self.machine.step(event);
        self.recount();
        // Before anybody is answered: the next volume may come to the same target at once.
        if effects.iter().any(|effect| matches!(effect, Effect::End)) {
            self.release();
        }
        for effect in effects {
            self.perform(effect, ctx);
        }
    }

    fn perform(&mut self, effect: Effect<Resolved, Caller, Waiter>, ctx: &mut Ctx<Self>) {
        let effects = self.effects.clone();
        match effect {
            Effect::Resolve { op, request } => {
                self.observe_begin(&request);
                self.watch(ctx);
                let secrets = std::mem::take(&mut self.secrets);
                let work = effects.resolve(request.spec.clone().with_secrets(secrets));
                ctx.effect(work, move |this, result, ctx| {
                    // The policy may have changed meanwhile.
                    let policy = &this.effects.hands.access.policy;
                    let result = result.and_then(|resolved| {
                        policy.check(&request.spec).map_err(VolumeError::from)?;
                        this.took = resolved.took;
                        Ok(resolved)
                    });
                    this.on(Event::Resolved { op, result }, ctx);
                });
            }
            Effect::Abandon => effects.abandon(),
            Effect::Present { op, request, view } => {
                let now = Instant::now();
                self.began.get_or_insert(now);
                ctx.effect(effects.present(request, view), move |this, result, ctx| {
                    this.took.set(Phase::Mount, now.elapsed());
                    this.on(Event::Presented { op, result }, ctx);
                });
            }
            Effect::Check { op, request, view, verified } => {
                ctx.effect(effects.check(request, view, verified), move |this, result, ctx| {
                    this.on(Event::Checked { op, result }, ctx);
                });
            }
            Effect::Remove { op, target, view } => {
                ctx.effect(effects.remove(target, view), move |this, result, ctx| {
                    this.on(Event::Removed { op, result }, ctx);
                });
            }
            Effect::AnswerPublish { waiters, result } => {
                self.working = Span::none();
                // Nobody waits for the log line.
                answer_all(waiters.into_iter().map(|caller| caller.reply), &result);
                self.observe_publish(&result);
            }
            Effect::AnswerUnpublish { waiters, result } => {
                answer_all(waiters, &result);
                if let Err(error) = &result {
                    tracing::warn!(volume = %self.id, %error, "unpublish failed");
                } else {
                    tracing::info!(volume = %self.id, "unpublished");
                }
            }
            Effect::End => ctx.stop(),
        }
    }

    /// While it is resolved: a publish that nobody waits for any more, and that nobody has repeated
    /// for long, is taken back.
    fn watch(&mut self, ctx: &mut Ctx<Self>) {
        let patience = self.effects.hands.abandon_after;
        let end = self.last_call + patience;
        self.watches += 1;
        let number = self.watches;
        ctx.effect(sleep_until(end), move |this, (), ctx| {
            // Of an earlier resolution, perhaps.
            if number != this.watches {
                return;
            }
            let State::Resolving { request, waiters, .. } = this.machine.state() else {
                return;
            };
            if waiters.iter().any(|caller| caller.waits.strong_count() > 0) {
                this.last_call = Instant::now();
            }
            if this.last_call.elapsed() < patience {
                return this.watch(ctx);
            }
            tracing::info!(volume = %this.id, "nobody waits for the volume any more");
            let target = request.target.clone();
            let (waiter, _) = deferred::<Self, _, _>();
            this.on(Event::Unpublish { target, waiter }, ctx);
        });
    }

    /// Nothing of the volume is left: its target is free, and no realisation is its.
    fn release(&mut self) {
        // Once more: one may have been asked for after the last time.
        self.effects.abandon();
        self.admitted = None;
        if let Some(target) = self.claimed.take() {
            self.effects.hands.claims.release(&target, &self.id);
        }
    }

    /// What is there already is no matter of the policy any more; what is half there is asked by the check.
    fn admit(&mut self, request: &Request, ctx: &mut Ctx<Self>) -> Answer {
        if let State::Absent = self.machine.state() {
            let admitted = self.effects.hands.access.policy.admit(&request.spec);
            self.admitted = admitted.map_err(VolumeError::from).inspect_err(|_| ctx.stop())?;
        }
        Ok(())
    }

    /// Takes the target for a volume that is not there yet, or refuses and ends.
    fn claim(&mut self, target: &TargetPath, ctx: &mut Ctx<Self>) -> Answer {
        if let State::Absent = self.machine.state() {
            self.effects.hands.claims.claim(target, &self.id).inspect_err(|_| ctx.stop())?;
            self.claimed = Some(target.clone());
        }
        Ok(())
    }
}

impl Actor for VolumeActor {
    type Context = Ctx<Self>;
}

impl Handler<Publish> for VolumeActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, publish: Publish, ctx: &mut Ctx<Self>) -> Self::Result {
        let Publish(request, secrets, waits) = publish;
        if let State::Absent | State::Removing { .. } = self.machine.state() {
            self.secrets = secrets;
        }
        let (reply, answer) = deferred::<Self, _, _>();
        self.last_call = Instant::now();
        trace::link(&Span::current(), &self.working);
        match self.admit(&request, ctx).and_then(|()| self.claim(&request.target, ctx)) {
            Ok(()) => self.on(Event::Publish { request, waiter: Caller { reply, waits } }, ctx),
            Err(error) => {
                tracing::info!(volume = %self.id, %error, "refused");
                reply.send(Err(error));
            }
        }
        answer
    }
}

impl Handler<Unpublish> for VolumeActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, Unpublish(target): Unpublish, ctx: &mut Ctx<Self>) -> Self::Result {
        let (waiter, answer) = deferred::<Self, _, _>();
        match self.claim(&target, ctx) {
            Ok(()) => self.on(Event::Unpublish { target, waiter }, ctx),
            Err(error) => waiter.send(Err(error)),
        }
        answer
    }
}
