//! Volumes of pods with a user namespace, on a real node.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::world::{
    NO_IDLE, assert_nothing_left, assert_shows, code, leftovers, record, target_mounts,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_for_a_user_namespace_outlives_its_node() {
    let lab = lab!();
    let root = lab.closure(&[]);
    for presentation in ["redirect", "hardlink"] {
        let state = format!("/nix/var/nix-csi-{presentation}");
        let arguments =
            [NO_IDLE, &["--presentation", presentation, "--state-dir", &state]].concat();
        let mut node = lab.node(&arguments).await;
        let attributes = [("storePath", root.as_str()), ("hostUsers", "false")];
        let volume = lab.volume("mapped", &attributes);
        for killed in [false, true] {
            if killed {
                node.kill();
                node = lab.node(&arguments).await;
            }
            // The second time it is there already.
            for _ in 0..2 {
                node.publish(&volume).await.unwrap();
                let status = node.status().await;
                assert_eq!(status.unreadable, []);
                assert_eq!(status.volumes[0].state, "mounted");
                assert_eq!(status.volumes[0].layout, "idmapped");
                assert_eq!(target_mounts(&lab).len(), 3);
                assert_shows(&lab, &volume, &root);
            }
        }
        assert!(!node.stats(&volume).await.unwrap().is_empty());
        // Taken apart by hand, it is made whole by the next publish.
        let var = volume.target.join("var");
        lab.ok("umount", &[var.to_str().unwrap()]);
        node.publish(&volume).await.unwrap();
        assert_eq!(target_mounts(&lab).len(), 3);
        assert_shows(&lab, &volume, &root);
        node.unpublish(&volume).await.unwrap();
        assert_eq!(leftovers(&lab), [""; 0]);
        node.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_layout_is_the_pods_and_the_attribute_is_part_of_the_request() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(NO_IDLE).await;
    let attributes = |users| [("storePath", root.as_str()), ("hostUsers", users)];
    let volume = lab.volume("host", &attributes("true"));
    node.publish(&volume).await.unwrap();
    assert_eq!(node.status().await.volumes[0].layout, "plain");
    assert_eq!(target_mounts(&lab).len(), 1);
    let mut other = lab.volume("host", &attributes("false"));
    other.target.clone_from(&volume.target);
    other.id.clone_from(&volume.id);
    assert_eq!(code(node.publish(&other).await), Code::AlreadyExists);
    node.unpublish(&volume).await.unwrap();

    let writable = lab.volume("writable", &attributes("false")).writable();
    assert_eq!(code(node.publish(&writable).await), Code::InvalidArgument);
    assert!(!record(&lab, &writable).try_exists().unwrap());
    assert_nothing_left(&lab);
}
