//! What a volume does to the world.

use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::claims::Claims;
use super::machine::{PresentFailed, Request, Seen};
use super::record::{Record, RecordStore};
use super::{ViewError, VolumeError};
use crate::actors::core;
use crate::actors::events::EventRecorder;
use crate::actors::policy::{Access, AccessError, PolicyError};
use crate::actors::resolve::{Resolved, Resolver};
use crate::crash::crash_point;
use crate::model::{Sight, TargetPath, Tenant, Viewer, VolumeId, VolumeSpec};
use crate::mount::{Attached, MountError, Mounts};
use crate::trace;

/// Everything that volumes share.
pub(super) struct Hands {
    pub(super) resolver: Resolver,
    pub(super) mounts: Arc<dyn Mounts>,
    pub(super) records: RecordStore,
    pub(super) boot_id: Arc<str>,
    pub(super) claims: Claims,
    /// How long a volume is resolved that nobody asks for any more.
    pub(super) abandon_after: Duration,
    pub(super) access: Access,
    /// Who tells pods what happens; nobody without Kubernetes.
    pub(super) events: Option<Addr<EventRecorder>>,
}

/// The hands of one volume. `turn` keeps its effects on the world apart, also from those that an
/// incarnation of the actor before this one has started.
#[derive(Clone)]
pub(super) struct Effects {
    pub(super) hands: Arc<Hands>,
    pub(super) id: VolumeId,
    pub(super) turn: Arc<Mutex<()>>,
}

impl Effects {
    pub(super) async fn resolve(self, spec: VolumeSpec) -> Result<Resolved, Arc<VolumeError>> {
        let began = Instant::now();
        let Hands { resolver, access, .. } = &*self.hands;
        let mut viewer = Viewer {
            tenant: Tenant::of(spec.pod.as_ref()),
            sight: access.sight(&spec),
            secret: spec.secret.clone(),
            tokens: spec.tokens.clone(),
            // As they are when it is evaluated and fetched.
            limits: None,
            fetch_from: None,
        };
        let mut resolved = loop {
            let source = spec.source.clone();
            let resolved = resolver.resolve(source, self.id.clone(), viewer.clone()).await?;
            // What was found with more in sight than the policy allows by now does not count.
            match (viewer.sight, access.sight(&spec)) {
                (Sight::Store, Sight::Own) => viewer.sight = Sight::Own,
                _ => break resolved,
            }
        };
        access
            .check(&spec, viewer.sight, resolved.lease.view())
            .await
            .map_err(VolumeError::from)?;
        resolved.took = resolved.took.resolved(began.elapsed());
        Ok(resolved)
    }

    pub(super) fn abandon(&self) {
        self.hands.resolver.abandon(self.id.clone());
    }

    /// Record, then mount; on failure neither stays.
    pub(super) async fn present(
        self,
        request: Arc<Request>,
        view: Resolved,
    ) -> Result<(), PresentFailed> {
        let turn = self.turn.clone().lock_owned().await;
        let work = move || {
            let _held = (turn, view.lease.clone());
            self.present_now(&request, &view)
        };
        let mounted = async { blocking(work).await.unwrap_or_else(|e| Err(failed(e, false))) };
        trace::phase(trace::below!("mount"), mounted).await
    }

    fn present_now(&self, request: &Request, resolved: &Resolved) -> Result<(), PresentFailed> {
        let view = resolved.lease.view();
        let published_at = jiff::Timestamp::now().as_second();
        let resolution = (view.id.clone(), view.root.clone());
        let record =
            Record::new(self.id.clone(), request, resolution, &self.hands.boot_id, published_at)
                .with_revision(resolved.revision.clone());
        let Hands { records, mounts, .. } = &*self.hands;
        // A record that is there already is of a mount that went away: it stays for the next try.
        let again = records.has(&self.id);
        if let Err(error) = records.write(&record) {
            return Err(failed(error, !again));
        }
        crash_point("volume-record-written");
        let Err(error) = mounts.attach(&view.id, &request.target, &self.id, request.spec.shape())
        else {
            crash_point("volume-attached");
            return Ok(());
        };
        // Whatever of ours is at the target goes; what was refused was not touched.
        let undone =
            if error.refuses_target() { Ok(()) } else { mounts.detach(&request.target, &self.id) };
        let clean = undone.is_ok() && records.remove(&self.id).is_ok();
        Err(failed(error.into(), clean))
    }

    /// What is not there and never was as a whole is asked of the policy again.
    pub(super) async fn check(
        self,
        request: Arc<Request>,
        view: Resolved,
        verified: bool,
    ) -> Result<Seen, Arc<VolumeError>> {
        let turn = self.turn.clone().lock_owned().await;
        let (spec, sight, lease) = (request.spec.clone(), view.sight, view.lease.clone());
        let access = self.hands.access.clone();
        let work = move || {
            let _turn = turn;
            let id = &view.lease.view().id;
            let found =
                self.hands.mounts.attached(id, &request.target, &self.id, request.spec.shape())?;
            match found {
                Attached::Ours => Ok(true),
                Attached::Nothing => Ok(false),
                Attached::Foreign => {
                    Err(MountError::Foreign { target: request.target.clone() }.into())
                }
            }
        };
        // The volume stays as it is, so the kubelet must not take this for the end of it.
        let half_done = |cause: VolumeError| VolumeError::HalfDone { cause: cause.into() };
        let looked = async { blocking(work).await.and_then(|found| found) };
        match trace::phase(trace::below!("check"), looked).await.map_err(half_done)? {
            true => return Ok(Seen::Whole),
            false if verified => return Ok(Seen::Nothing),
            false => {}
        }
        Ok(match access.check_again(&spec, sight, lease.view()).await {
            Ok(()) => Seen::Nothing,
            Err(AccessError::Policy(
                cause @ (PolicyError::Refused { .. } | PolicyError::Narrowed),
            )) => Seen::Refused(VolumeError::TakenBack { cause }.into()),
            // Not known yet is no refusal: what is taken away does not come back.
            Err(
                error @ (AccessError::Policy(PolicyError::Awaited { .. }) | AccessError::Store(_)),
            ) => return Err(half_done(error.into()).into()),
        })
    }

    /// Unmount, then forget.
    pub(super) async fn remove(
        self,
        target: TargetPath,
        view: Option<Resolved>,
    ) -> Result<(), Arc<VolumeError>> {
        let turn = self.turn.clone().lock_owned().await;
        let work = move || {
            let _held = (turn, view);
            self.hands.mounts.detach(&target, &self.id)?;
            crash_point("volume-detached");
            self.hands.records.remove(&self.id)
        };
        let unmounted = async { blocking(work).await.and_then(|done| done) };
        Ok(trace::phase(trace::below!("unmount"), unmounted).await?)
    }
}

/// With something left behind, the answer must not be a final one.
fn failed(cause: VolumeError, clean: bool) -> PresentFailed {
    let error = if clean { cause } else { VolumeError::HalfDone { cause: cause.into() } };
    PresentFailed { error: error.into(), clean }
}

/// Runs on a blocking thread; a panic there becomes an error of this volume.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, VolumeError> {
    let done = core::blocking(work).await;
    done.map_err(|panic| VolumeError::View(Arc::new(ViewError::panicked("a volume", &panic))))
}
