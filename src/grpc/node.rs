//! CSI Node for ephemeral inline volumes: publish and unpublish, nothing staged.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::client;
use super::proto::csi::node_server::Node;
use super::proto::csi::node_service_capability::{Rpc, Type, rpc};
use super::proto::csi::volume_usage::Unit;
use super::proto::csi::{
    NodeExpandVolumeRequest, NodeExpandVolumeResponse, NodeGetCapabilitiesRequest,
    NodeGetCapabilitiesResponse, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest,
    NodePublishVolumeResponse, NodeServiceCapability, NodeStageVolumeRequest,
    NodeStageVolumeResponse, NodeUnpublishVolumeRequest, NodeUnpublishVolumeResponse,
    NodeUnstageVolumeRequest, NodeUnstageVolumeResponse, VolumeUsage,
};
use super::publish_request::{self, Admittance};
use super::status::status_of;
use super::traced;
use crate::actors::builds::BuildsHandle;
use crate::actors::core::Admission;
use crate::actors::pods::PodLookup;
use crate::actors::volume::{Directory, VolumeError, VolumeStats};
use crate::k8s::split_attributes;
use crate::model::{InvalidTarget, PodInfo, TargetPath, VolumeId};
use crate::trace;

pub struct NodeService {
    pub node_id: String,
    pub directory: Directory,
    pub builds: BuildsHandle,
    /// How many publishes may wait at once.
    pub publishes: Admission,
    /// How long a publish is held before it is answered with ABORTED; the kubelet gives up at
    /// 2 minutes and calls again.
    pub hold: Duration,
    pub admittance: Admittance,
    /// The node's pods; a call that is held for one that is deleted ends. `None`: nobody watches.
    pub pods: Option<PodLookup>,
}

/// How long a call goes on for a pod that is being deleted.
const LEAVING: Duration = Duration::from_secs(1);

const SERVICE: &str = "csi.v1.Node";

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Node for NodeService {
    /// "This operation MUST be idempotent" (CSI 1.12, NodePublishVolume).
    async fn node_publish_volume(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let span = traced::call(&request, SERVICE, "NodePublishVolume");
        traced::answer(span, self.publish(request)).await
    }

    /// "If the volume is not found … the plugin MUST reply 0 OK" (CSI 1.12, NodeUnpublishVolume).
    async fn node_unpublish_volume(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let span = traced::call(&request, SERVICE, "NodeUnpublishVolume");
        traced::answer(span, self.unpublish(request)).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<NodeGetVolumeStatsRequest>,
    ) -> Answer<NodeGetVolumeStatsResponse> {
        let call = request.into_inner();
        let id = volume_id(&call.volume_id)?;
        // A path that can't be a target is one where nothing is published.
        let path = TargetPath::parse("volume_path", &call.volume_path).map_err(|e| match e {
            InvalidTarget::Missing { .. } => Status::invalid_argument(e.to_string()),
            InvalidTarget::TooLong { .. }
            | InvalidTarget::Relative { .. }
            | InvalidTarget::NotNormal { .. } => Status::not_found(e.to_string()),
        })?;
        let stats = self.directory.stats(&id, path).await.map_err(|e| status_of(&e))?;
        Ok(Response::new(NodeGetVolumeStatsResponse {
            usage: usage(stats),
            volume_condition: None,
        }))
    }

    async fn node_get_capabilities(
        &self,
        _: Request<NodeGetCapabilitiesRequest>,
    ) -> Answer<NodeGetCapabilitiesResponse> {
        let stats = Rpc { r#type: rpc::Type::GetVolumeStats.into() };
        let capabilities = vec![NodeServiceCapability { r#type: Some(Type::Rpc(stats)) }];
        Ok(Response::new(NodeGetCapabilitiesResponse { capabilities }))
    }

    async fn node_get_info(&self, _: Request<NodeGetInfoRequest>) -> Answer<NodeGetInfoResponse> {
        Ok(Response::new(NodeGetInfoResponse {
            node_id: self.node_id.clone(),
            ..NodeGetInfoResponse::default()
        }))
    }

    async fn node_stage_volume(
        &self,
        _: Request<NodeStageVolumeRequest>,
    ) -> Answer<NodeStageVolumeResponse> {
        Err(Status::unimplemented("volumes are not staged"))
    }

    async fn node_unstage_volume(
        &self,
        _: Request<NodeUnstageVolumeRequest>,
    ) -> Answer<NodeUnstageVolumeResponse> {
        Err(Status::unimplemented("volumes are not staged"))
    }

    async fn node_expand_volume(
        &self,
        _: Request<NodeExpandVolumeRequest>,
    ) -> Answer<NodeExpandVolumeResponse> {
        Err(Status::unimplemented("volumes are not expanded"))
    }
}

impl NodeService {
    async fn publish(
        &self,
        request: Request<NodePublishVolumeRequest>,
    ) -> Answer<NodePublishVolumeResponse> {
        let is_by_a_person = client::is_by_a_person(&request);
        let call = request.into_inner();
        let host_users = self.host_users(&call).await;
        let (id, wanted) =
            publish_request::parse(call, &self.admittance, is_by_a_person, host_users)?;
        let _permit = self.publishes.enter().map_err(|e| status_of(&VolumeError::from(e)))?;
        let pod = wanted.spec.pod.clone();
        let span = match &pod {
            None => tracing::info_span!("publish", volume = %id),
            Some(pod) => tracing::info_span!(
                "publish", volume = %id, pod = pod.name, namespace = pod.namespace,
                pod_uid = pod.uid, service_account = pod.service_account,
                ephemeral = pod.is_ephemeral
            ),
        };
        let publish = trace::phase(span, self.directory.publish(&id, wanted));
        tokio::select! {
            biased;
            done = tokio::time::timeout(self.hold, publish) => match done {
                Ok(Ok(())) => Ok(Response::new(NodePublishVolumeResponse {})),
                Ok(Err(error)) => Err(status_of(&error)),
                Err(_) => Err(self.still_pending(&id).await),
            },
            () = self.pod_left(pod) => Err(Status::aborted(
                "the pod is being deleted: the volume is not mounted any more",
            )),
        }
    }

    async fn unpublish(
        &self,
        request: Request<NodeUnpublishVolumeRequest>,
    ) -> Answer<NodeUnpublishVolumeResponse> {
        let call = request.into_inner();
        let id = volume_id(&call.volume_id)?;
        let target = target("target_path", &call.target_path)?;
        let span = tracing::info_span!("unpublish", volume = %id);
        let unpublish = trace::phase(span, self.directory.unpublish(&id, target));
        unpublish.await.map_err(|e| status_of(&e))?;
        Ok(Response::new(NodeUnpublishVolumeResponse {}))
    }

    /// What the API server says of the pod of this call.
    async fn host_users(&self, call: &NodePublishVolumeRequest) -> Option<bool> {
        let pods = self.pods.as_ref()?;
        let (_, pod) = split_attributes(call.volume_context.clone());
        pods.host_users(&pod?).await
    }

    /// Ends a little after the pod has been deleted: what was almost done may come to its end. The
    /// kubelet itself does not cancel the call, and unpublishes when it has ended.
    async fn pod_left(&self, pod: Option<PodInfo>) {
        match (&self.pods, pod) {
            (Some(pods), Some(pod)) => {
                pods.table.left(&pod).await;
                tokio::time::sleep(LEAVING).await;
            }
            _ => std::future::pending().await,
        }
    }

    /// The work goes on; the caller's retry joins it.
    async fn still_pending(&self, id: &VolumeId) -> Status {
        let progress = match self.builds.of_volume(id).await {
            Some(build) => format!("{} after {:.0} s", build.progress, build.seconds),
            None => "making the view".to_owned(),
        };
        Status::aborted(format!("still being published: {progress}; the next call joins it"))
    }
}

fn volume_id(value: &str) -> Result<VolumeId, Status> {
    VolumeId::parse(value).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn target(field: &'static str, value: &str) -> Result<TargetPath, Status> {
    TargetPath::parse(field, value).map_err(|e| Status::invalid_argument(e.to_string()))
}

fn usage(stats: VolumeStats) -> Vec<VolumeUsage> {
    let entry = |unit: Unit, total: u64, used: u64, available: u64| VolumeUsage {
        unit: unit.into(),
        total: clamp(total),
        used: clamp(used),
        available: clamp(available),
    };
    match stats {
        VolumeStats::Closure { bytes, .. } => vec![entry(Unit::Bytes, bytes, bytes, 0)],
        VolumeStats::Writable(u) => vec![
            entry(Unit::Bytes, u.bytes_total, u.bytes_used, u.bytes_available),
            entry(Unit::Inodes, u.inodes_total, u.inodes_used, u.inodes_available),
        ],
    }
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
