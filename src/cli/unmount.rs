//! `nix-csi unmount`.

use super::{Failure, message, target};
use crate::config::UnmountArgs;
use crate::grpc::client;
use crate::grpc::proto::admin::StatusRequest;
use crate::grpc::proto::csi::NodeUnpublishVolumeRequest;

pub async fn unmount(args: UnmountArgs) -> Result<(), Failure> {
    let target = target::resolve(&args.directory)?;
    let mut admin = client::admin(args.sockets.admin_endpoint.path()).await?;
    let status = admin.status(StatusRequest {}).await.map_err(|e| message(&e))?.into_inner();
    // A volume of a kubelet has another id than ours.
    let known = status.volumes.into_iter().find(|v| v.target_path == target.to_string());
    let Some(volume) = known else {
        return Err(Failure(format!(
            "no volume is mounted at {target}: `nix-csi status` lists them"
        )));
    };
    let call =
        NodeUnpublishVolumeRequest { volume_id: volume.volume_id, target_path: target.to_string() };
    let mut node = client::node(args.sockets.endpoint.path()).await?;
    node.node_unpublish_volume(client::within(args.sockets.traceparent.as_deref(), call))
        .await
        .map_err(|e| message(&e))?;
    println!("unmounted {target}");
    Ok(())
}
