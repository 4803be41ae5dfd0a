//! The Admin service: what a person asks a node.

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::proto::admin::admin_server::Admin;
use super::proto::admin::{
    Build, BuildChange, BuildsRequest, BuildsResponse, FailedBuild, ListUploadsRequest,
    ListUploadsResponse, Node, PolicyRequest, PolicyResponse, PrefetchRequest, PrefetchResponse,
    ProgressRequest, ProgressResponse, ReleaseRequest, ReleaseResponse, RetryBuildsRequest,
    RetryBuildsResponse, RetryUploadsRequest, RetryUploadsResponse, StatusRequest, StatusResponse,
    UnreadableRecord, View, Volume, WatchBuildsRequest,
};
use super::{gc, keep, policy, uploads};
use crate::actors::builds::{BuildEvent, BuildSummary, BuildsHandle, Remembered};
use crate::actors::gc::GcHandle;
use crate::actors::keeper::KeeperHandle;
use crate::actors::policy::PolicyHandle;
use crate::actors::uploads::UploadsHandle;
use crate::actors::views::{ViewSummary, ViewsHandle};
use crate::actors::volume::{Directory, VolumeStatus};
use crate::health::Health;
use crate::model::{Access, VolumeId};
use crate::mount::Presentation;
use crate::nix::Origin;

/// What is true of a node for its whole life.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    pub node_id: String,
    pub driver: String,
    pub nix_version: String,
    pub presentation: Presentation,
    /// Why the fallback serves.
    pub presentation_reason: String,
}

pub struct AdminService {
    pub facts: NodeFacts,
    pub health: Health,
    pub directory: Directory,
    pub builds: BuildsHandle,
    pub views: ViewsHandle,
    /// `None`: there is no cache to upload to.
    pub uploads: Option<UploadsHandle>,
    pub keeper: KeeperHandle,
    pub policy: PolicyHandle,
    pub gc: GcHandle,
    /// Ends streams and prefetches, which would hold up a shutdown.
    pub stop: CancellationToken,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (volumes, builds, views, kept, gc) = tokio::join!(
            self.directory.status(),
            self.builds.list(),
            self.views.list(),
            self.keeper.list(),
            gc::gc(&self.gc)
        );
        let unreadable = self
            .directory
            .unreadable()
            .into_iter()
            .map(|u| UnreadableRecord { path: u.path.display().to_string(), reason: u.reason });
        Ok(Response::new(StatusResponse {
            node: Some(self.node()),
            volumes: volumes.into_iter().map(volume).collect(),
            builds: builds.into_iter().map(build).collect(),
            views: views.iter().map(view).collect(),
            unreadable: unreadable.collect(),
            kept: kept.kept.into_iter().map(keep::kept).collect(),
            refused_sources: kept.refused,
            gc,
        }))
    }

    async fn progress(
        &self,
        request: Request<ProgressRequest>,
    ) -> Result<Response<ProgressResponse>, Status> {
        let id = VolumeId::parse(&request.into_inner().volume_id)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let build = self.builds.of_volume(&id).await.map(build);
        Ok(Response::new(ProgressResponse { build }))
    }

    async fn builds(&self, _: Request<BuildsRequest>) -> Result<Response<BuildsResponse>, Status> {
        Ok(Response::new(BuildsResponse {
            builds: self.builds.list().await.into_iter().map(build).collect(),
            failures: self.builds.failures().iter().map(failed).collect(),
        }))
    }

    type WatchBuildsStream = BoxStream<'static, Result<BuildChange, Status>>;

    async fn watch_builds(
        &self,
        _: Request<WatchBuildsRequest>,
    ) -> Result<Response<Self::WatchBuildsStream>, Status> {
        let events = self.builds.subscribe().await;
        let events = events.map_err(|gone| Status::unavailable(gone.to_string()))?;
        let changes = futures::stream::unfold(Some(events), |events| async {
            let mut events = events?;
            match events.recv().await {
                Ok(event) => Some((Ok(change(event)), Some(events))),
                // An end may be among what was missed.
                Err(RecvError::Lagged(missed)) => {
                    let lost = format!("{missed} changes were missed: watch again");
                    Some((Err(Status::aborted(lost)), None))
                }
                Err(RecvError::Closed) => None,
            }
        });
        let stop = self.stop.clone().cancelled_owned();
        Ok(Response::new(changes.take_until(stop).boxed()))
    }

    async fn retry_builds(
        &self,
        request: Request<RetryBuildsRequest>,
    ) -> Result<Response<RetryBuildsResponse>, Status> {
        let RetryBuildsRequest { numbers, source } = request.into_inner();
        let all = numbers.is_empty() && source.is_empty();
        let forgiven = self.builds.forgive(|of, number| {
            all || numbers.contains(&number) || !source.is_empty() && of.text() == source
        });
        Ok(Response::new(RetryBuildsResponse { forgiven: forgiven as u64 }))
    }

    async fn list_uploads(
        &self,
        _: Request<ListUploadsRequest>,
    ) -> Result<Response<ListUploadsResponse>, Status> {
        uploads::list(self.uploads.as_ref()).await.map(Response::new)
    }

    async fn retry_uploads(
        &self,
        request: Request<RetryUploadsRequest>,
    ) -> Result<Response<RetryUploadsResponse>, Status> {
        uploads::retry(self.uploads.as_ref(), request.into_inner()).await.map(Response::new)
    }

    async fn prefetch(
        &self,
        request: Request<PrefetchRequest>,
    ) -> Result<Response<PrefetchResponse>, Status> {
        tokio::select! {
            done = keep::prefetch(&self.keeper, request) => done.map(Response::new),
            () = self.stop.cancelled() => Err(Status::unavailable("the node stops: ask again")),
        }
    }

    async fn policy(
        &self,
        request: Request<PolicyRequest>,
    ) -> Result<Response<PolicyResponse>, Status> {
        Ok(Response::new(policy::policy(&self.policy, &self.builds, &request.into_inner())))
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        keep::release(&self.keeper, request.into_inner()).await.map(Response::new)
    }
}

impl AdminService {
    fn node(&self) -> Node {
        let (condition, reason) = self.health.overall();
        let facts = self.facts.clone();
        Node {
            node_id: facts.node_id,
            driver: facts.driver,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            nix_version: facts.nix_version,
            presentation: name_of(facts.presentation).to_owned(),
            presentation_reason: facts.presentation_reason,
            health: condition.as_str().to_owned(),
            health_reason: reason,
        }
    }
}

fn name_of(presentation: Presentation) -> &'static str {
    match presentation {
        Presentation::Redirect => "redirect",
        Presentation::Hardlink => "hardlink",
    }
}

fn volume(status: VolumeStatus) -> Volume {
    let mut volume = Volume {
        volume_id: status.id.to_string(),
        state: status.state.to_owned(),
        published_at: status.published_at,
        ..Volume::default()
    };
    if let Some(request) = status.request {
        let pod = request.spec.pod.clone().unwrap_or_default();
        volume.target_path = request.target.to_string();
        request.spec.source.key().clone_into(&mut volume.source_kind);
        volume.source = request.spec.source.public_text();
        request.spec.layout.as_str().clone_into(&mut volume.layout);
        volume.read_only = request.spec.access == Access::ReadOnly;
        volume.pod = pod.name;
        volume.pod_uid = pod.uid;
        volume.service_account = pod.service_account;
        volume.ephemeral = pod.is_ephemeral;
        volume.namespace = pod.namespace;
    }
    if let Some(lease) = status.lease {
        let view = lease.view();
        volume.root = view.root.to_string();
        volume.paths = view.paths as u64;
        volume.closure_bytes = view.nar_size;
        name_of(view.presentation).clone_into(&mut volume.presentation);
    }
    volume.revision = status.revision.unwrap_or_default();
    status.origin.map(Origin::as_str).unwrap_or_default().clone_into(&mut volume.origin);
    volume
}

fn build(summary: BuildSummary) -> Build {
    let progress = summary.progress;
    Build {
        source_kind: summary.source.key().to_owned(),
        source: summary.source.public_text(),
        volumes: summary.volumes.iter().map(ToString::to_string).collect(),
        seconds: summary.seconds,
        builds_done: progress.builds_done,
        builds_expected: progress.builds_expected,
        fetches_done: progress.fetches_done,
        fetches_expected: progress.fetches_expected,
        bytes_done: progress.bytes_done,
        bytes_expected: progress.bytes_expected,
        current: progress.current,
        log_tail: progress.log_tail.into(),
        number: summary.number,
        stage: progress.stage.as_str().to_owned(),
        tenant: summary.tenant.to_string(),
    }
}

fn failed(remembered: &Remembered) -> FailedBuild {
    FailedBuild {
        number: remembered.number,
        source_kind: remembered.source.key().to_owned(),
        source: remembered.source.public_text(),
        error: remembered.failure.to_string(),
        times: remembered.times,
        again_in: remembered.again_in.as_secs_f64(),
    }
}

fn change(event: BuildEvent) -> BuildChange {
    match event {
        BuildEvent::Changed(summary) => {
            BuildChange { build: Some(build(summary)), ended: false, error: String::new() }
        }
        BuildEvent::Ended { build: summary, error } => BuildChange {
            build: Some(build(summary)),
            ended: true,
            error: error.unwrap_or_default(),
        },
    }
}

fn view(summary: &ViewSummary) -> View {
    View {
        view_id: summary.view.id.as_str().to_owned(),
        root: summary.view.root.to_string(),
        paths: summary.view.paths as u64,
        closure_bytes: summary.view.nar_size,
        users: summary.users as u64,
        presentation: name_of(summary.view.presentation).to_owned(),
        replaced: summary.replaced.iter().map(ToString::to_string).collect(),
    }
}
