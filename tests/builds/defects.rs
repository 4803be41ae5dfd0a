//! Defects of earlier implementations, by their numbers; 14 is `outage`, and those of mounts are in
//! `tests/volume`.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Gate, Kubelet, Lab, NO_IDLE, Pace, Served, Volume, code, until};
use crate::world::{PATHS, assert_ends, daemon, filled, node_with, paced, with_caches};

const ROOTS: &str = "/nix/var/nix/gcroots/nix-csi/views";

/// What the volume's root path says, which is a file; a collector has been there before.
fn shown(lab: &Lab, volume: &Volume) -> String {
    lab.ok("nix-store", &["--gc"]);
    let store = volume.target.join("store").to_str().unwrap().to_owned();
    let names = lab.names(&store);
    assert_eq!(names.len(), 1, "{names:?}");
    lab.ok("cat", &[&format!("{store}/{}", names[0])])
}

/// Whoever calls again, of whichever driver, and whatever fails: what is mounted stays, with its root.
#[tokio::test(flavor = "multi_thread")]
async fn defect_2_a_second_publish_builds_nothing_and_its_failure_takes_nothing() {
    let lab = lab!();
    let gate = Gate::new(&lab, "live");
    gate.open();
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    let mut broken = volume.clone();
    broken.attributes = lab::attrs(&[("nixExpr", "throw \"broken\"")]);
    let node = lab.node(NO_IDLE).await;
    node.publish(&volume).await.unwrap();
    let (mounts, roots) = (lab.mount_lines_below(lab.dir.path()), lab.names(ROOTS));
    node.kill();
    let node = lab.node(NO_IDLE).await;
    for _ in 0..3 {
        node.publish(&volume).await.unwrap();
        assert_eq!(code(node.publish(&broken).await), Code::AlreadyExists);
        assert_eq!(shown(&lab, &volume), "live");
    }
    // Nix is gone, as when a node's store is being repaired.
    lab.kill(&daemon(&lab, "").unwrap());
    node.publish(&volume).await.unwrap();
    assert_eq!(shown(&lab, &volume), "live");
    assert_eq!(lab.mount_lines_below(lab.dir.path()), mounts);
    assert_eq!(lab.names(ROOTS), roots);
    assert_eq!(gate.runs(), 1);
    assert_ends(&lab, &node, &volume).await;
}

/// What an expression came to is remembered; that it is still in the store is not.
#[tokio::test(flavor = "multi_thread")]
async fn defect_6_a_remembered_result_is_rooted_or_built_again() {
    let lab = lab!();
    let gate = Gate::new(&lab, "known");
    gate.open();
    let node = lab.node(NO_IDLE).await;
    let expression = gate.expression();
    for round in 1..=3 {
        let volume = lab.volume("pod", &[("nixExpr", &expression)]);
        node.publish(&volume).await.unwrap();
        assert_eq!(shown(&lab, &volume), "known");
        // Another pod of it, from memory, and the first one goes.
        let second = lab.volume("second", &[("nixExpr", &expression)]);
        node.publish(&second).await.unwrap();
        node.unpublish(&volume).await.unwrap();
        assert_eq!(shown(&lab, &second), "known");
        assert_eq!(gate.runs(), round);
        assert_ends(&lab, &node, &second).await;
        lab.ok("nix-store", &["--gc"]);
    }
}

/// What was limited is named, with the setting that raises it.
#[tokio::test(flavor = "multi_thread")]
async fn defect_11_a_build_that_takes_too_long_is_told_so() {
    let lab = lab!();
    let gate = Gate::new(&lab, "slow");
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    for setting in ["--build-timeout", "--max-silent-time", "--realise-timeout"] {
        let node = lab.node(&[NO_IDLE, &[setting, "1s"]].concat()).await;
        let error = node.publish(&volume).await.unwrap_err();
        let text = error.message();
        assert!(text.contains(setting) && text.contains("1s"), "{text}");
        assert!(!text.contains("substituter"), "{text}");
        assert_ends(&lab, &node, &volume).await;
        assert!(gate.processes(&lab).is_empty());
    }
    assert_eq!(gate.runs(), 3);
}

/// A fetch that takes longer than a call goes on below the retries: nothing is served twice.
#[tokio::test(flavor = "multi_thread")]
async fn defect_11_a_slow_fetch_is_not_begun_again_by_retries() {
    let lab = lab!();
    let pace = Pace::of_this_run();
    let (cache, root) = filled(&lab, PATHS).await;
    // Three minutes and a half.
    cache.throttle(Some(pace.rate(15_000)));
    let node = node_with(&lab, &with_caches(pace, &[&cache])).await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    kubelet.until_published().await;
    kubelet.assert_only_retryable();
    assert!(kubelet.calls().len() > 1, "{:#?}", kubelet.calls());
    let nars = cache.nars();
    assert_eq!(nars.len(), 20);
    for (path, served) in nars {
        let once = Served { requests: 1, bytes: cache.size(&path), complete: 1 };
        assert_eq!(served, once, "{path}");
    }
    assert_ends(&lab, &node, &volume).await;
}

/// Ten calls, each with another end, and one build.
#[tokio::test(flavor = "multi_thread")]
async fn defect_11_retries_join_the_build() {
    let lab = lab!();
    let pace = Pace::of_this_run();
    let gate = Gate::new(&lab, "joined");
    let node = node_with(&lab, &paced(pace)).await;
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    for seconds in [1, 5, 10, 1, 20, 1, 5, 1] {
        let kubelet = Kubelet::new(&node, &volume, pace);
        assert_eq!(kubelet.cancel_after(pace.seconds(seconds)).await.code, Code::Cancelled);
    }
    gate.started().await;
    let kubelets = [(); 2].map(|()| Kubelet::new(&node, &volume, pace));
    let published = futures::future::join_all(kubelets.iter().map(Kubelet::until_published));
    let opened = async {
        let waited = async || kubelets.iter().all(|kubelet| !kubelet.calls().is_empty());
        until("both to have waited", waited).await;
        gate.open();
    };
    tokio::join!(published, opened);
    kubelets.iter().for_each(Kubelet::assert_only_retryable);
    assert_eq!(gate.runs(), 1);
    assert_ends(&lab, &node, &volume).await;
}
