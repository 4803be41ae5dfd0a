//! A publish that is refused: its code, its text, and that it leaves nothing.

use nix_csi::grpc::client::Code;
use nix_csi::grpc::proto::csi::NodePublishVolumeRequest;

use crate::lab::{Lab, Node, Volume};

/// An event of Kubernetes holds 1 KiB; a build's log may be longer, but not by much.
const MOST_BYTES: usize = 6 * 1024;

/// Publishes, and gives the code and the text of the refusal.
pub async fn refused(
    lab: &Lab,
    node: &Node,
    volume: &Volume,
    request: NodePublishVolumeRequest,
) -> (Code, String) {
    let status = node.publish_request(request).await.expect_err("it must be refused");
    let text = status.message().to_owned();
    nothing_stays(lab, node, volume).await;
    let odd = |c: char| c.is_control() && c != '\n';
    assert!(!text.contains(odd), "control characters: {text:?}");
    assert!(!text.is_empty() && text.len() <= MOST_BYTES, "{} bytes: {text}", text.len());
    (status.code(), text)
}

/// No record, no root of a build, no mount, no directory, no writable layer, no volume.
pub async fn nothing_stays(lab: &Lab, node: &Node, volume: &Volume) {
    let status = node.status().await;
    assert!(status.volumes.iter().all(|v| v.volume_id != volume.id), "{:?}", status.volumes);
    assert_eq!(status.builds, [], "builds");
    let empty: &[&str] = &[];
    for dir in ["/nix/var/nix/gcroots/nix-csi/builds", "/nix/var/nix-csi/volumes"] {
        assert_eq!(lab.names(dir), empty, "{dir}");
    }
    assert_eq!(lab.names(lab.path("run/volumes").to_str().unwrap()), empty, "records");
    assert_eq!(lab.mounts_below(&lab.path("targets")), empty, "mounts");
    assert_eq!(lab.names(lab.path("targets").to_str().unwrap()), empty, "directories");
}
