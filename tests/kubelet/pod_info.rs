//! Whose a volume is: the kubelet says it, and without its word there is no volume.

use std::collections::HashMap;
use std::fs;

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Lab, NO_IDLE, Volume, assert_nothing_left};

const KUBELET: &[&str] = &["--require-pod-info"];

/// As the kubelet asks for a pod's volume `nix`.
fn of_pod(lab: &Lab, uid: &str, attribute: (&str, &str)) -> Volume {
    let mut volume = lab.volume(uid, &[attribute]);
    let dir = lab.path("kubelet/pods").join(uid).join("volumes/kubernetes.io~csi/nix");
    fs::create_dir_all(&dir).unwrap();
    volume.target = dir.join("mount");
    volume.attributes.extend(pod_info(uid));
    volume
}

fn pod_info(uid: &str) -> HashMap<String, String> {
    let key = |name: &str| format!("csi.storage.k8s.io/{name}");
    HashMap::from([
        (key("pod.name"), "web-0".to_owned()),
        (key("pod.namespace"), "shop".to_owned()),
        (key("pod.uid"), uid.to_owned()),
        (key("serviceAccount.name"), "clerk".to_owned()),
        (key("ephemeral"), "true".to_owned()),
    ])
}

#[tokio::test]
async fn the_kubelets_five_keys_are_in_the_status_and_in_the_log() {
    let lab = lab!();
    let node = lab.node(&[KUBELET, NO_IDLE, &["--log", "info"]].concat()).await;
    let path = lab.closure(&["--arg", "paths", "2"]);
    let volume = of_pod(&lab, "u-1", ("storePath", &path));
    node.publish(&volume).await.unwrap();
    let status = node.status().await;
    let shown = &status.volumes[0];
    assert_eq!((&*shown.pod, &*shown.namespace), ("web-0", "shop"));
    assert_eq!((&*shown.pod_uid, &*shown.service_account), ("u-1", "clerk"));
    assert!(shown.ephemeral);
    let log = node.log();
    let line = log.lines().find(|line| line.contains("published")).unwrap();
    for part in ["web-0", "shop", "u-1", "clerk", "ephemeral=true"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // The kubelet's keys are no part of the request: a restarted kubelet may say more.
    node.publish(&volume).await.unwrap();
    drop(node);
    let node = lab.node(&[KUBELET, NO_IDLE].concat()).await;
    let again = node.status().await;
    assert_eq!(again.volumes[0].service_account, "clerk", "the record knows it");
    node.unpublish(&volume).await.unwrap();
    assert_nothing_left(&lab);
}

#[tokio::test]
async fn a_volume_that_is_not_a_pods_inline_one_is_refused() {
    let lab = lab!();
    let node = lab.node(&[KUBELET, NO_IDLE].concat()).await;
    let path = lab.closure(&["--arg", "paths", "2"]);
    let not_inline = "volume_context csi.storage.k8s.io/ephemeral is not \"true\": only inline \
         volumes are served: write `volumes: [{name: nix, csi: {driver: nix.csi.store, \
         volumeAttributes: …}}]` into the pod, not a PersistentVolume; and the CSIDriver object needs \
         podInfoOnMount: true";
    let good = of_pod(&lab, "u-1", ("storePath", &path));
    let mut without = good.clone();
    without.attributes = HashMap::from([("storePath".to_owned(), path.clone())]);
    let mut persistent = good.clone();
    persistent.attributes.insert("csi.storage.k8s.io/ephemeral".to_owned(), "false".to_owned());
    for volume in [&without, &persistent] {
        let error = node.publish(volume).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, not_inline));
    }
    // What an author could write if the kubelet did not overwrite it.
    let mut spoofed = good.clone();
    spoofed.attributes.extend(pod_info("u-2"));
    let mut elsewhere = good.clone();
    elsewhere.target = lab.target("elsewhere");
    for volume in [&spoofed, &elsewhere] {
        let error = node.publish(volume).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        let said = error.message();
        assert!(said.contains("is not the pod of target_path"), "{said}");
        assert!(said.contains("podInfoOnMount: true"), "{said}");
    }
    node.publish(&good).await.unwrap();
    node.unpublish(&good).await.unwrap();
    assert_nothing_left(&lab);
}

/// A person's own call says that it is one; only root reaches the socket.
#[tokio::test]
async fn a_person_on_the_node_still_mounts() {
    let lab = lab!();
    let node = lab.node(&[KUBELET, NO_IDLE].concat()).await;
    let path = lab.closure(&["--arg", "paths", "2"]);
    let target = lab.target("person");
    let sockets = [
        "--endpoint",
        node.csi.to_str().unwrap(),
        "--admin-endpoint",
        node.admin.to_str().unwrap(),
    ];
    let binary = env!("CARGO_BIN_EXE_nix-csi");
    let target = target.to_str().unwrap();
    lab.ok(binary, &[&["mount", "--store-path", &path, target], &sockets[..]].concat());
    assert_eq!(node.status().await.volumes.len(), 1);
    lab.ok(binary, &[&["unmount", target], &sockets[..]].concat());
    assert_nothing_left(&lab);
}
