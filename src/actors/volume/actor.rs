//! The actor of one volume.
//!
//! - Owns: the volume's state machine and its record on disk.
//! - Hears: [`Publish`], [`Unpublish`], [`Status`], [`Stats`], and the ends of its own effects.
//! - Tells: builds that it no longer waits.
//! - Ends when the volume is gone. On restart: the record says what is mounted.

use std::sync::Arc;

use actix::{Actor, ActorContext, Handler, Message, ResponseFuture};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::VolumeError;
use super::effects::{Effects, Hands, Resolved, blocking};
use super::machine::{Effect, Event, Machine, Request, State};
use super::record::Record;
use crate::actors::core::{Ctx, Reply, answer_all, deferred, impl_supervised};
use crate::actors::metrics;
use crate::actors::views::Lease;
use crate::model::{Access, TargetPath, VolumeId};
use crate::mount::{Attached, Presentation, Usage};
use crate::nix::Origin;

type Answer = Result<(), Arc<VolumeError>>;
type Waiter = Reply<Answer>;

#[derive(Message, Clone)]
#[rtype(result = "Answer")]
pub struct Publish(pub Request);

#[derive(Message, Clone)]
#[rtype(result = "Answer")]
pub struct Unpublish(pub TargetPath);

#[derive(Message, Clone)]
#[rtype(result = "VolumeStatus")]
pub struct Status;

/// Statistics of what is mounted at this path.
#[derive(Message, Clone)]
#[rtype(result = "Result<VolumeStats, Arc<VolumeError>>")]
pub struct Stats(pub TargetPath);

/// A volume as people see it.
#[derive(Debug, Clone)]
pub struct VolumeStatus {
    pub id: VolumeId,
    pub state: &'static str,
    pub request: Option<Request>,
    pub lease: Option<Arc<Lease>>,
    pub origin: Option<Origin>,
    /// Seconds since the epoch.
    pub published_at: i64,
    pub presentation: Option<Presentation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeStats {
    /// A read-only volume is as large as its closure, and full.
    Closure {
        bytes: u64,
        paths: u64,
    },
    Writable(Usage),
}

pub struct VolumeActor {
    id: VolumeId,
    effects: Effects,
    machine: Machine<Resolved, Waiter, Waiter>,
    /// What the directory found at start; taken once.
    recovered: Option<(Request, Resolved)>,
    /// Since when a publish is at work; a repeated one, which only looks, is none.
    began: Option<Instant>,
    published_at: i64,
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
            recovered: None,
            began: None,
            published_at: jiff::Timestamp::now().as_second(),
        }
    }

    pub(super) fn from_record(record: &Record, lease: Arc<Lease>, hands: Hands) -> Self {
        let resolved = Resolved { lease, origin: Origin::Present };
        Self {
            recovered: Some((record.request(), resolved)),
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
            Effect::End => ctx.stop(),
        }
    }

    /// One log line and one observation for the end of a publish, whoever waited for it.
    fn observe_publish(&mut self, result: &Answer) {
        let (id, mounted) = (&self.id, matches!(self.machine.state(), State::Mounted { .. }));
        let Some(began) = self.began else {
            match result {
                Ok(()) => tracing::debug!(volume = %id, "already published"),
                Err(error) => tracing::warn!(volume = %id, %error, "publish refused"),
            }
            return;
        };
        let seconds = began.elapsed().as_secs_f64();
        let outcome = result.as_ref().map_or_else(|e| e.kind(), |()| "ok");
        let source = match self.machine.state() {
            State::Mounted { request, .. } => request.spec.source.key(),
            _ => "none",
        };
        metrics::PUBLISH_SECONDS.with_label_values(&[source, outcome]).observe(seconds);
        match (result, self.machine.state()) {
            (Ok(()), State::Mounted { request, view, .. }) => {
                self.published_at = jiff::Timestamp::now().as_second();
                let view = view.lease.view();
                tracing::info!(
                    volume = %id, target = %request.target, source = ?request.spec.source,
                    root = %view.root, paths = view.paths, seconds, "published"
                );
            }
            (Ok(()), _) => tracing::debug!(volume = %id, "already published"),
            (Err(error), _) => tracing::warn!(volume = %id, %error, seconds, "publish failed"),
        }
        if mounted {
            self.began = None;
        }
    }

    fn status(&self) -> VolumeStatus {
        let (state, request, resolved) = match self.machine.state() {
            State::Absent => ("absent", None, None),
            State::Resolving { request, .. } => ("resolving", Some(request), None),
            State::Presenting { request, view, .. } => ("presenting", Some(request), Some(view)),
            State::Mounted { request, view, verified: true }
            | State::Checking { request, view, .. } => ("mounted", Some(request), Some(view)),
            State::Mounted { request, view, verified: false } => {
                ("unverified", Some(request), Some(view))
            }
            State::Removing { volume, .. } => {
                ("removing", volume.as_ref().map(|v| &v.0), volume.as_ref().map(|v| &v.1))
            }
        };
        VolumeStatus {
            id: self.id.clone(),
            state,
            request: request.cloned(),
            lease: resolved.map(|r| r.lease.clone()),
            origin: resolved.map(|r| r.origin),
            published_at: self.published_at,
            presentation: resolved.map(|r| r.lease.view().presentation),
        }
    }
}

impl Actor for VolumeActor {
    type Context = Ctx<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        if let Some((request, resolved)) = self.recovered.take() {
            self.machine = Machine::recovered(request, resolved);
        }
    }
}

impl Handler<Publish> for VolumeActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, Publish(request): Publish, ctx: &mut Ctx<Self>) -> Self::Result {
        let (waiter, answer) = deferred::<Self, _, _>();
        self.on(Event::Publish { request, waiter }, ctx);
        answer
    }
}

impl Handler<Unpublish> for VolumeActor {
    type Result = ResponseFuture<Answer>;

    fn handle(&mut self, Unpublish(target): Unpublish, ctx: &mut Ctx<Self>) -> Self::Result {
        let (waiter, answer) = deferred::<Self, _, _>();
        self.on(Event::Unpublish { target, waiter }, ctx);
        answer
    }
}

impl Handler<Status> for VolumeActor {
    type Result = actix::MessageResult<Status>;

    fn handle(&mut self, _: Status, _: &mut Ctx<Self>) -> Self::Result {
        actix::MessageResult(self.status())
    }
}

impl Handler<Stats> for VolumeActor {
    type Result = ResponseFuture<Result<VolumeStats, Arc<VolumeError>>>;

    fn handle(&mut self, Stats(at): Stats, _: &mut Ctx<Self>) -> Self::Result {
        let known = match self.machine.state() {
            State::Mounted { request, view, .. } | State::Checking { request, view, .. }
                if request.target == at =>
            {
                Some((request.clone(), view.clone()))
            }
            _ => None,
        };
        let Effects { hands, id, .. } = self.effects.clone();
        Box::pin(async move {
            let (request, view) =
                known.ok_or_else(|| VolumeError::NotPublished { id: id.to_string() })?;
            Ok(blocking(move || {
                let (view, access) = (view.lease.view(), request.spec.access);
                match hands.mounts.attached(&view.id, &request.target, &id, access)? {
                    Attached::Ours => {}
                    Attached::Nothing | Attached::Foreign => {
                        return Err(VolumeError::NotPublished { id: id.to_string() });
                    }
                }
                Ok(match access {
                    Access::ReadOnly => {
                        VolumeStats::Closure { bytes: view.nar_size, paths: view.paths as u64 }
                    }
                    Access::Writable => VolumeStats::Writable(hands.mounts.writable_usage(&id)?),
                })
            })
            .await
            .and_then(|stats| stats)?)
        })
    }
}
