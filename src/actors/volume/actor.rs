//! The actor of one volume.
//!
//! - Owns: the volume's state machine and its record on disk.
//! - Hears: [`Publish`], [`Unpublish`], the questions in `observe`, and the ends of its own
//!   effects.
//! - Tells: builds that it no longer waits.
//! - Ends when the volume is gone. On restart: the record says what is mounted.

use std::sync::Arc;

use actix::{Actor, ActorContext, Handler, Message, ResponseFuture};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::VolumeError;
use super::effects::{Effects, Hands, Resolved};
use super::machine::{Effect, Event, Machine, Request, State};
use super::record::Record;
use crate::actors::core::{Ctx, Reply, answer_all, deferred, impl_supervised};
use crate::actors::views::Lease;
use crate::model::{TargetPath, VolumeId};
use crate::nix::Origin;

pub(super) type Answer = Result<(), Arc<VolumeError>>;
type Waiter = Reply<Answer>;

#[derive(Message, Clone)]
#[rtype(result = "Answer")]
pub struct Publish(pub Request);

#[derive(Message, Clone)]
#[rtype(result = "Answer")]
pub struct Unpublish(pub TargetPath);

pub struct VolumeActor {
    pub(super) id: VolumeId,
    pub(super) effects: Effects,
    pub(super) machine: Machine<Resolved, Waiter, Waiter>,
    /// The target that this volume has claimed.
    claimed: Option<TargetPath>,
    /// Since when a publish is at work; a repeated one, which only looks, is none.
    pub(super) began: Option<Instant>,
    pub(super) published_at: i64,
}

impl_supervised!(VolumeActor, "volume", |this| {
    // What was mounted stays known; a publish checks it before it relies on it.
    let known = match this.machine.state() {
        State::Mounted { request, view, .. }
        | State::Checking { request, view, .. }
        | State::Presenting { request, view, .. }
        | State::Removing { volume: Some((request, view)), .. } => {
            Some((request.clone(), view.clone()))
        }
        State::Absent | State::Resolving { .. } | State::Removing { volume: None, .. } => None,
    };
    this.effects.abandon();
    this.machine = known.map_or_else(Machine::new, |(r, v)| Machine::recovered(r, v));
});

impl VolumeActor {
    pub(super) fn new(id: VolumeId, hands: Hands) -> Self {
        Self {
            effects: Effects { hands, id: id.clone(), turn: Arc::new(Mutex::new(())) },
            id,
            machine: Machine::new(),
            claimed: None,
            began: None,
            published_at: jiff::Timestamp::now().as_second(),
        }
    }

    pub(super) fn from_record(record: &Record, lease: Arc<Lease>, hands: Hands) -> Self {
        let resolved = Resolved { lease, origin: Origin::Present };
        // Two records of one target can't be: the first was written by a volume that claimed it.
        let _ = hands.claims.claim(&record.target, &record.id);
        Self {
            machine: Machine::recovered(record.request(), resolved),
            claimed: Some(record.target.clone()),
            published_at: record.published_at,
            ..Self::new(record.id.clone(), hands)
        }
    }

    fn on(&mut self, event: Event<Resolved, Waiter, Waiter>, ctx: &mut Ctx<Self>) {
        for effect in self.machine.step(event) {
            self.perform(effect, ctx);
        }
    }

    fn perform(&mut self, effect: Effect<Resolved, Waiter, Waiter>, ctx: &mut Ctx<Self>) {
        let effects = self.effects.clone();
        match effect {
            Effect::Resolve { op, request } => {
                self.began = Some(Instant::now());
                let work = effects.resolve(request.spec.source);
                ctx.effect(work, move |this, result, ctx| {
                    this.on(Event::Resolved { op, result }, ctx);
                });
            }
            Effect::Abandon => effects.abandon(),
            Effect::Present { op, request, view } => {
                self.began.get_or_insert_with(Instant::now);
                ctx.effect(effects.present(request, view), move |this, result, ctx| {
                    this.on(Event::Presented { op, result }, ctx);
                });
            }
            Effect::Check { op, request, view } => {
                ctx.effect(effects.check(request, view), move |this, result, ctx| {
                    this.on(Event::Checked { op, result }, ctx);
                });
            }
            Effect::Remove { op, target, view } => {
                ctx.effect(effects.remove(target, view), move |this, result, ctx| {
                    this.on(Event::Removed { op, result }, ctx);
                });
            }
            Effect::AnswerPublish { waiters, result } => {
                // Nobody waits for the log line.
                answer_all(waiters, &result);
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
            Effect::End => {
                if let Some(target) = self.claimed.take() {
                    self.effects.hands.claims.release(&target, &self.id);
                }
                ctx.stop();
            }
        }
    }
}

impl Actor for VolumeActor {
    type Context = Ctx<Self>;
}

impl Handler<Publish> for VolumeActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, Publish(request): Publish, ctx: &mut Ctx<Self>) -> Self::Result {
        let (waiter, answer) = deferred::<Self, _, _>();
        if let State::Absent = self.machine.state() {
            if let Err(error) = self.effects.hands.claims.claim(&request.target, &self.id) {
                waiter.send(Err(error.into()));
                ctx.stop();
                return answer;
            }
            self.claimed = Some(request.target.clone());
        }
        self.on(Event::Publish { request, waiter }, ctx);
        answer
    }
}

impl Handler<Unpublish> for VolumeActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, Unpublish(target): Unpublish, ctx: &mut Ctx<Self>) -> Self::Result {
        let (waiter, answer) = deferred::<Self, _, _>();
        if let State::Absent = self.machine.state()
            && let Err(error) = self.effects.hands.claims.check(&target, &self.id)
        {
            waiter.send(Err(error.into()));
            ctx.stop();
            return answer;
        }
        self.on(Event::Unpublish { target, waiter }, ctx);
        answer
    }
}
