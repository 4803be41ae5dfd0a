//! What a volume tells of itself: its status, its statistics, and the end of each publish.

use std::sync::Arc;

use actix::{Handler, Message, ResponseFuture};
use tokio::time::Instant;
use tracing::Span;

use super::VolumeError;
use super::actor::{Answer, VolumeActor};
use super::effects::{Effects, blocking};
use super::machine::{Request, State};
use super::metrics::{self, Counted};
use crate::actors::core::{Ctx, tell};
use crate::actors::events::{Facts, News, Subject, VolumeNews};
use crate::actors::took::Took;
use crate::actors::views::Lease;
use crate::model::{Access, TargetPath, VolumeId};
use crate::mount::{Attached, Presentation, Usage};
use crate::nix::Origin;

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
    pub request: Option<Arc<Request>>,
    pub lease: Option<Arc<Lease>>,
    pub origin: Option<Origin>,
    pub revision: Option<String>,
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

impl VolumeActor {
    /// A publish that has something to do begins.
    pub(super) fn observe_begin(&mut self, request: &Arc<Request>) {
        let pod = request.spec.pod.as_ref();
        let (namespace, pod) = pod.map(|pod| (&*pod.namespace, &*pod.name)).unzip();
        let source = &request.spec.source;
        tracing::info!(volume = %self.id, namespace, pod, ?source, "publishing");
        self.began = Some(Instant::now());
        self.took = Took::begun();
        self.working = Span::current();
        self.source = source.key();
        self.tell_pod(request, News::Began);
        self.asked = Some(request.clone());
    }

    /// One log line and one observation for the end of a publish, whoever waited for it.
    pub(super) fn observe_publish(&mut self, result: &Answer) {
        let (id, mounted) = (&self.id, matches!(self.machine.state(), State::Mounted { .. }));
        let pod = self.asked.as_ref().and_then(|request| request.spec.pod.as_ref());
        let namespace = pod.map(|pod| &*pod.namespace);
        let Some(began) = self.began else {
            match result {
                Ok(()) => tracing::debug!(volume = %id, "already published"),
                Err(error) => tracing::warn!(namespace, volume = %id, %error, "publish refused"),
            }
            return;
        };
        let seconds = began.elapsed().as_secs_f64();
        let outcome = result.as_ref().map_or_else(|e| e.kind(), |()| "ok");
        metrics::published(self.source, outcome, seconds, &self.took);
        self.tell_end(result, seconds);
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
            (Err(error), _) => {
                tracing::warn!(namespace, volume = %id, %error, seconds, "publish failed");
            }
        }
        if mounted {
            (self.began, self.took) = (None, Took::default());
        }
    }

    /// After each step of the machine.
    pub(super) fn recount(&mut self) {
        let access = self.machine.request().map(|request| request.spec.access);
        if self.counted.as_ref().map(|counted| counted.0) != access {
            self.counted = access.map(Counted::new);
        }
    }

    /// For `kubectl describe pod`.
    pub(super) fn tell_pod(&self, request: &Request, news: News) {
        let Some(events) = &self.effects.hands.events else { return };
        if let Some(subject) = Subject::of(&self.id, request) {
            tell(events, VolumeNews { subject, news });
        }
    }

    fn tell_end(&self, result: &Answer, seconds: f64) {
        let Some(request) = &self.asked else {
            return;
        };
        let news = match (result, self.machine.state()) {
            (Ok(()), State::Mounted { request, view, .. }) => {
                let (origin, view) = (view.origin, view.lease.view());
                let (source, root) = (request.spec.source.clone(), view.root.clone());
                let (paths, bytes) = (view.paths, view.nar_size);
                News::Mounted(Facts { source, root, paths, bytes, seconds, origin })
            }
            (Ok(()), _) => return,
            (Err(error), _) => match error.as_ref() {
                VolumeError::Removing | VolumeError::Overtaken => News::Gone,
                error => News::Failed { note: error.lasting_text(), same: error.same() },
            },
        };
        self.tell_pod(request, news);
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
            revision: resolved.and_then(|r| r.revision.clone()),
            published_at: self.published_at,
            presentation: resolved.map(|r| r.lease.view().presentation),
        }
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
                let (view, spec) = (view.lease.view(), &request.spec);
                match hands.mounts.attached(&view.id, &request.target, &id, spec.shape())? {
                    Attached::Ours => {}
                    Attached::Nothing | Attached::Foreign => {
                        return Err(VolumeError::NotPublished { id: id.to_string() });
                    }
                }
                Ok(match spec.access {
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
