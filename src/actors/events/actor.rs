//! The recorder actor; see the module above.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Handler};
use futures::FutureExt;
use tokio::time::{Instant, sleep};

use super::outbox::{Call, Outbox};
use super::waiting::{Due, WaitingList};
use super::{News, Subject, VolumeNews, note};
use crate::actors::builds::BuildsHandle;
use crate::actors::core::{Ctx, impl_supervised};
use crate::actors::metrics;
use crate::k8s::{Api, ApiError, Event, Kind};
use crate::metrics::count;

const TICK: Duration = Duration::from_secs(1);
/// A missing permission is said so often, not for each Event.
const SAY_AGAIN: Duration = Duration::from_secs(300);

/// Reasons of our Events; none is the kubelet's.
pub(in crate::actors) const REASONS: [&str; 3] = [BUILDING, MOUNTED, FAILED];
const BUILDING: &str = "StoreBuilding";
const MOUNTED: &str = "StoreMounted";
const FAILED: &str = "StoreFailed";

pub struct EventRecorder {
    api: Arc<dyn Api>,
    builds: BuildsHandle,
    waiting: WaitingList,
    outbox: Outbox,
    said_refusal: Option<Instant>,
}

impl_supervised!(EventRecorder, "events", |this| {
    this.waiting = WaitingList::default();
    this.outbox = Outbox::new(Instant::now());
});

impl EventRecorder {
    pub fn new(api: Arc<dyn Api>, builds: BuildsHandle) -> Self {
        let outbox = Outbox::new(Instant::now());
        Self { api, builds, waiting: WaitingList::default(), outbox, said_refusal: None }
    }

    fn tick(&mut self, ctx: &mut Ctx<Self>) {
        for due in self.waiting.due(Instant::now()) {
            self.say_progress(due, ctx);
        }
        self.post(ctx);
        ctx.effect(sleep(TICK), |this, (), ctx| this.tick(ctx));
    }

    fn say_progress(&mut self, Due { volumes, since }: Due, ctx: &mut Ctx<Self>) {
        let Some(Subject { pod, .. }) = volumes.first().cloned() else {
            return;
        };
        let builds = self.builds.clone();
        let asked = async move {
            let mut found = Vec::new();
            for Subject { id, name, .. } in volumes {
                let build = builds.of_volume(&id).await;
                found.push((name, build.map(|build| build.progress)));
            }
            found
        };
        ctx.effect(asked, move |this, found, ctx| {
            let (kind, reason) = (Kind::Normal, BUILDING);
            let note = note::waiting(&found, since);
            let event =
                Event { pod, kind, reason, action: "Realise", note, at: jiff::Timestamp::now() };
            this.outbox.progress(event, Instant::now());
            this.post(ctx);
        });
    }

    /// One call at a time, so that Events arrive in their order.
    fn post(&mut self, ctx: &mut Ctx<Self>) {
        metrics::EVENTS_QUEUED.set(count(self.outbox.len()));
        let Some(call) = self.outbox.next(Instant::now()) else {
            return;
        };
        let called = match call {
            Call::Post(event) => self.api.post_event(event).map(|done| done.map(Some)).boxed(),
            Call::Repeat(name, count) => {
                self.api.repeat_event(name, count).map(|done| done.map(|()| None)).boxed()
            }
        };
        ctx.effect(called, |this, result, ctx| {
            if let Err(error) = &result {
                this.say_error(error);
            }
            this.outbox.done(result, Instant::now());
            this.post(ctx);
        });
    }

    fn say_error(&mut self, error: &ApiError) {
        let is_known = matches!(error, ApiError::Down { .. } | ApiError::Gone { .. });
        let said_lately = self.said_refusal.is_some_and(|at| at.elapsed() < SAY_AGAIN);
        if is_known || said_lately {
            return tracing::debug!(%error, "an Event was not posted");
        }
        self.said_refusal = Some(Instant::now());
        tracing::warn!(%error, "an Event was not posted; more of these are counted only");
    }

    fn hear(&mut self, subject: Subject, news: News) {
        let (now, at) = (Instant::now(), jiff::Timestamp::now());
        match news {
            News::Began => return self.waiting.began(subject, now),
            News::Gone => {}
            News::Mounted(facts) => {
                let note = note::mounted(&subject.name, &facts);
                let (pod, kind, reason) = (subject.pod, Kind::Normal, MOUNTED);
                let event = Event { pod, kind, reason, action: "Mount", note, at };
                self.outbox.happened(event, now);
            }
            News::Failed { note, same } => {
                let same = note::failed(&subject.name, &same);
                let note = note::failed(&subject.name, &note);
                let (pod, kind, reason) = (subject.pod, Kind::Warning, FAILED);
                let event = Event { pod, kind, reason, action: "Mount", note, at };
                self.outbox.failed(event, same, now);
            }
        }
        self.waiting.ended(&subject.id);
    }
}

impl Actor for EventRecorder {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.tick(ctx);
    }
}

impl Handler<VolumeNews> for EventRecorder {
    type Result = ();

    fn handle(&mut self, VolumeNews { subject, news }: VolumeNews, ctx: &mut Ctx<Self>) {
        self.hear(subject, news);
        self.post(ctx);
    }
}
