//! Pods that come and go: what is swept, and above all what is not.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix_csi::actors::volume::Request;
use nix_csi::k8s::fake::Fault;
use nix_csi::k8s::{ApiError, Pod};
use nix_csi::model::{PodInfo, Source, TargetPath};

use crate::world::{SWEEP_AFTER, World, id, request, store_path, with_world};

fn pod(uid: &str) -> Pod {
    let (namespace, name) = ("ns".to_owned(), format!("pod-{uid}"));
    Pod { uid: uid.to_owned(), namespace, name, host_users: true, is_leaving: false }
}

/// Where the kubelet of the test has the volume of a pod.
fn volume_dir(world: &World, uid: &str) -> PathBuf {
    world.dir.path().join("kubelet/pods").join(uid).join("volumes/kubernetes.io~csi/nix")
}

/// As the kubelet asks for a pod's volume.
fn of_pod(world: &World, uid: &str, source: &Source) -> Request {
    let dir = volume_dir(world, uid);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("vol_data.json"), "{}").unwrap();
    let Pod { uid, namespace, name, .. } = pod(uid);
    let mut request = request("unused", source);
    request.target = TargetPath::parse("", dir.join("mount").to_str().unwrap()).unwrap();
    request.spec.pod = Some(PodInfo { uid, namespace, name, ..PodInfo::default() });
    request
}

/// A mounted volume whose pod and kubelet know it.
async fn mounted(world: &World, uid: &str) {
    world.api.apply(pod(uid));
    let source = store_path(&world.nix.add_closure("hello", 2).unwrap());
    let request = of_pod(world, uid, &source);
    world.actors.directory.publish(&id(uid), request).await.unwrap();
}

fn kubelet_forgets(world: &World, uid: &str) {
    fs::remove_file(volume_dir(world, uid).join("vol_data.json")).unwrap();
}

/// Not yet the time to sweep.
fn almost() -> Duration {
    SWEEP_AFTER.saturating_sub(Duration::from_secs(60))
}

async fn long_after() {
    tokio::time::sleep(SWEEP_AFTER * 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_of_a_pod_that_is_gone_for_good_is_swept() {
    with_world(|world| async move {
        mounted(&world, "a").await;
        mounted(&world, "b").await;
        world.api.delete("a");
        kubelet_forgets(&world, "a");
        tokio::time::sleep(almost()).await;
        assert_eq!(world.mounts.mounted(), 2, "not before its time");
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert_eq!(world.mounts.mounted(), 1);
        assert_eq!(world.names("records"), ["b.json"]);
    })
    .await;
}

/// Each of these is a pod that may still run.
#[tokio::test(start_paused = true)]
async fn what_is_not_certain_keeps_a_volume() {
    with_world(|world| async move {
        for uid in ["known", "kubelet", "nobody", "other"] {
            mounted(&world, uid).await;
        }
        // The kubelet has done with it, but the API server has the pod.
        kubelet_forgets(&world, "known");
        // Deleted by force: the kubelet still ends its containers.
        world.api.delete("kubelet");
        // Published by somebody who said nothing of a pod.
        let source = store_path(&world.nix.add_closure("hello", 2).unwrap());
        world.publish("plain", &source).await.unwrap();
        long_after().await;
        assert_eq!(world.mounts.mounted(), 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_wrong_or_an_api_server_that_is_down_keeps_a_volume() {
    with_world(|world| async move {
        mounted(&world, "a").await;
        kubelet_forgets(&world, "a");
        world.api.delete("a");
        let down = ApiError::Down { what: "read a pod", reason: "test".to_owned() };
        world.api.set_fault(Some(Fault::Fails(down)));
        long_after().await;
        assert_eq!(world.mounts.mounted(), 1, "nobody could be asked once more");
        world.api.set_fault(Some(Fault::Hangs));
        long_after().await;
        assert_eq!(world.mounts.mounted(), 1);
    })
    .await;
}

/// The kubelet's directory looks empty where it is not mounted.
#[tokio::test(start_paused = true)]
async fn a_kubelet_directory_that_is_not_there_keeps_a_volume() {
    with_world(|world| async move {
        mounted(&world, "a").await;
        world.api.delete("a");
        fs::rename(world.dir.path().join("kubelet"), world.dir.path().join("elsewhere")).unwrap();
        long_after().await;
        assert_eq!(world.mounts.mounted(), 1);
    })
    .await;
}

/// A pod of the same name, as of a StatefulSet, is another pod.
#[tokio::test(start_paused = true)]
async fn a_successor_of_the_same_name_does_not_keep_it() {
    with_world(|world| async move {
        mounted(&world, "a").await;
        world.api.delete("a");
        kubelet_forgets(&world, "a");
        world.api.apply(Pod { name: "pod-a".to_owned(), ..pod("new") });
        long_after().await;
        assert_eq!(world.mounts.mounted(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_time_begins_anew_when_the_watch_was_lost() {
    with_world(|world| async move {
        mounted(&world, "a").await;
        world.api.delete("a");
        kubelet_forgets(&world, "a");
        tokio::time::sleep(almost()).await;
        world.api.lose_watches();
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.api.break_watches();
        tokio::time::sleep(almost()).await;
        assert_eq!(world.mounts.mounted(), 1);
        tokio::time::sleep(Duration::from_secs(180)).await;
        assert_eq!(world.mounts.mounted(), 0);
    })
    .await;
}

/// The watch tells; the API server is asked about those alone that it no longer has.
#[tokio::test(start_paused = true)]
async fn nobody_is_asked_about_pods_that_are_there() {
    with_world(|world| async move {
        for uid in ["a", "b", "c"] {
            mounted(&world, uid).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = world.api.calls();
        long_after().await;
        assert_eq!(world.api.calls(), before);
    })
    .await;
}
