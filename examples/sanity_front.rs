//! A front for csi-sanity, and for nothing else. The driver serves ephemeral inline volumes and has
//! no controller, but csi-sanity's node specs make their volumes through one, and two of them ask
//! the node's own socket for it. So this is a controller whose volumes carry the attributes that a
//! pod would; it passes Identity and Node calls on to the driver, and says that it has a controller.
//!
//! `sanity_front SOCKET DRIVER_SOCKET STORE_PATH`

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix_csi::grpc::proto::csi as pb;
use nix_csi::grpc::{Endpoint, client};
use pb::controller_server::{Controller, ControllerServer};
use pb::identity_server::{Identity, IdentityServer};
use pb::node_server::{Node, NodeServer};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

struct Volumes {
    store_path: String,
    by_name: Mutex<HashMap<String, pb::Volume>>,
}

impl Volumes {
    fn volumes(&self) -> MutexGuard<'_, HashMap<String, pb::Volume>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn required(field: &str, value: &str) -> Result<(), Status> {
    if value.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is missing")));
    }
    Ok(())
}

fn absent<T>(what: &str) -> Answer<T> {
    Err(Status::unimplemented(what.to_owned()))
}

#[tonic::async_trait]
impl Controller for Volumes {
    async fn create_volume(
        &self,
        request: Request<pb::CreateVolumeRequest>,
    ) -> Answer<pb::CreateVolumeResponse> {
        let call = request.into_inner();
        required("name", &call.name)?;
        if call.volume_capabilities.is_empty() {
            return Err(Status::invalid_argument("volume_capabilities is missing"));
        }
        let id: String = call.name.chars().filter(char::is_ascii_alphanumeric).take(100).collect();
        let volume = pb::Volume {
            volume_id: format!("sanity-{id}"),
            volume_context: HashMap::from([("storePath".to_owned(), self.store_path.clone())]),
            ..pb::Volume::default()
        };
        self.volumes().insert(call.name, volume.clone());
        Ok(Response::new(pb::CreateVolumeResponse { volume: Some(volume) }))
    }

    async fn delete_volume(
        &self,
        request: Request<pb::DeleteVolumeRequest>,
    ) -> Answer<pb::DeleteVolumeResponse> {
        let call = request.into_inner();
        required("volume_id", &call.volume_id)?;
        self.volumes().retain(|_, volume| volume.volume_id != call.volume_id);
        Ok(Response::new(pb::DeleteVolumeResponse {}))
    }

    async fn controller_get_capabilities(
        &self,
        _: Request<pb::ControllerGetCapabilitiesRequest>,
    ) -> Answer<pb::ControllerGetCapabilitiesResponse> {
        use pb::controller_service_capability::{Rpc, Type, rpc};
        let create = Type::Rpc(Rpc { r#type: rpc::Type::CreateDeleteVolume.into() });
        let capabilities = vec![pb::ControllerServiceCapability { r#type: Some(create) }];
        Ok(Response::new(pb::ControllerGetCapabilitiesResponse { capabilities }))
    }

    async fn validate_volume_capabilities(
        &self,
        _: Request<pb::ValidateVolumeCapabilitiesRequest>,
    ) -> Answer<pb::ValidateVolumeCapabilitiesResponse> {
        absent("validate_volume_capabilities")
    }
    async fn controller_publish_volume(
        &self,
        _: Request<pb::ControllerPublishVolumeRequest>,
    ) -> Answer<pb::ControllerPublishVolumeResponse> {
        absent("controller_publish_volume")
    }
    async fn controller_unpublish_volume(
        &self,
        _: Request<pb::ControllerUnpublishVolumeRequest>,
    ) -> Answer<pb::ControllerUnpublishVolumeResponse> {
        absent("controller_unpublish_volume")
    }
    async fn list_volumes(
        &self,
        _: Request<pb::ListVolumesRequest>,
    ) -> Answer<pb::ListVolumesResponse> {
        absent("list_volumes")
    }
    async fn get_capacity(
        &self,
        _: Request<pb::GetCapacityRequest>,
    ) -> Answer<pb::GetCapacityResponse> {
        absent("get_capacity")
    }
    async fn create_snapshot(
        &self,
        _: Request<pb::CreateSnapshotRequest>,
    ) -> Answer<pb::CreateSnapshotResponse> {
        absent("create_snapshot")
    }
    async fn delete_snapshot(
        &self,
        _: Request<pb::DeleteSnapshotRequest>,
    ) -> Answer<pb::DeleteSnapshotResponse> {
        absent("delete_snapshot")
    }
    async fn list_snapshots(
        &self,
        _: Request<pb::ListSnapshotsRequest>,
    ) -> Answer<pb::ListSnapshotsResponse> {
        absent("list_snapshots")
    }
    async fn get_snapshot(
        &self,
        _: Request<pb::GetSnapshotRequest>,
    ) -> Answer<pb::GetSnapshotResponse> {
        absent("get_snapshot")
    }
    async fn controller_expand_volume(
        &self,
        _: Request<pb::ControllerExpandVolumeRequest>,
    ) -> Answer<pb::ControllerExpandVolumeResponse> {
        absent("controller_expand_volume")
    }
    async fn controller_get_volume(
        &self,
        _: Request<pb::ControllerGetVolumeRequest>,
    ) -> Answer<pb::ControllerGetVolumeResponse> {
        absent("controller_get_volume")
    }
    async fn controller_modify_volume(
        &self,
        _: Request<pb::ControllerModifyVolumeRequest>,
    ) -> Answer<pb::ControllerModifyVolumeResponse> {
        absent("controller_modify_volume")
    }
}

/// Passes calls on to the driver.
#[derive(Clone)]
struct Front(Endpoint);

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unreachable(error: client::Unreachable) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Identity for Front {
    async fn get_plugin_capabilities(
        &self,
        _: Request<pb::GetPluginCapabilitiesRequest>,
    ) -> Answer<pb::GetPluginCapabilitiesResponse> {
        use pb::plugin_capability::{Service, Type, service};
        let controller = Type::Service(Service { r#type: service::Type::ControllerService.into() });
        let capabilities = vec![pb::PluginCapability { r#type: Some(controller) }];
        Ok(Response::new(pb::GetPluginCapabilitiesResponse { capabilities }))
    }

    async fn get_plugin_info(
        &self,
        request: Request<pb::GetPluginInfoRequest>,
    ) -> Answer<pb::GetPluginInfoResponse> {
        let mut driver = client::identity(self.0.path()).await.map_err(unreachable)?;
        driver.get_plugin_info(request.into_inner()).await
    }

    async fn probe(&self, request: Request<pb::ProbeRequest>) -> Answer<pb::ProbeResponse> {
        let mut driver = client::identity(self.0.path()).await.map_err(unreachable)?;
        driver.probe(request.into_inner()).await
    }
}

#[tonic::async_trait]
impl Node for Front {
    async fn node_stage_volume(
        &self,
        request: Request<pb::NodeStageVolumeRequest>,
    ) -> Answer<pb::NodeStageVolumeResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_stage_volume(request.into_inner()).await
    }

    async fn node_unstage_volume(
        &self,
        request: Request<pb::NodeUnstageVolumeRequest>,
    ) -> Answer<pb::NodeUnstageVolumeResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_unstage_volume(request.into_inner()).await
    }

    async fn node_publish_volume(
        &self,
        request: Request<pb::NodePublishVolumeRequest>,
    ) -> Answer<pb::NodePublishVolumeResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_publish_volume(request.into_inner()).await
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<pb::NodeUnpublishVolumeRequest>,
    ) -> Answer<pb::NodeUnpublishVolumeResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_unpublish_volume(request.into_inner()).await
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<pb::NodeGetVolumeStatsRequest>,
    ) -> Answer<pb::NodeGetVolumeStatsResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_get_volume_stats(request.into_inner()).await
    }

    async fn node_expand_volume(
        &self,
        request: Request<pb::NodeExpandVolumeRequest>,
    ) -> Answer<pb::NodeExpandVolumeResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_expand_volume(request.into_inner()).await
    }

    async fn node_get_capabilities(
        &self,
        request: Request<pb::NodeGetCapabilitiesRequest>,
    ) -> Answer<pb::NodeGetCapabilitiesResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_get_capabilities(request.into_inner()).await
    }

    async fn node_get_info(
        &self,
        request: Request<pb::NodeGetInfoRequest>,
    ) -> Answer<pb::NodeGetInfoResponse> {
        let mut driver = client::node(self.0.path()).await.map_err(unreachable)?;
        driver.node_get_info(request.into_inner()).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, driver, store_path] = &args[..] else {
        return Err("usage: sanity_front SOCKET DRIVER_SOCKET STORE_PATH".into());
    };
    let listener = socket.parse::<Endpoint>()?.bind()?;
    let front = Front(driver.parse()?);
    let controller = Volumes { store_path: store_path.clone(), by_name: Mutex::default() };
    tonic::transport::Server::builder()
        .add_service(ControllerServer::new(controller))
        .add_service(IdentityServer::new(front.clone()))
        .add_service(NodeServer::new(front))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await?;
    Ok(())
}
