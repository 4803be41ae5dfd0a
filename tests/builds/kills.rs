//! `kill -9` in the middle of a build whose first half is done: whoever dies, the kubelet's retry
//! succeeds, the first half is not done again, and nothing stays.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Kubelet, NO_IDLE, Pace, code, until};
use crate::world::{
    Chain, assert_ends, assert_no_processes, daemon, is_alive, node_with, paced, worker,
};

#[tokio::test(flavor = "multi_thread")]
async fn of_the_driver() {
    let lab = lab!();
    let chain = Chain::new(&lab);
    let node = lab.node(NO_IDLE).await;
    let kubelet = Kubelet::new(&node, &chain.volume, Pace::of_this_run());
    let killed = async {
        chain.builder().await;
        node.kill();
        // Who holds a lock or a build's user would be in the successor's way.
        assert_no_processes(&lab).await;
        until("a call without a driver", async || kubelet.calls().len() > 1).await;
        let node = lab.starting_node(NO_IDLE);
        chain.second.started_again(2).await;
        chain.second.open();
        node
    };
    let (_, node) = tokio::join!(kubelet.until_published(), killed);
    kubelet.assert_only_retryable();
    chain.ends(&lab, &node, &kubelet, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_daemon() {
    let lab = lab!();
    let chain = Chain::new(&lab);
    let node = lab.node(NO_IDLE).await;
    let kubelet = Kubelet::new(&node, &chain.volume, Pace::of_this_run());
    let killed = async {
        let builder = chain.builder().await;
        let old = daemon(&lab, "").unwrap();
        lab.kill(&old);
        until("another daemon", async || daemon(&lab, &old).is_some()).await;
        node.ready().await;
        assert!(!is_alive(&lab, &builder), "a build of the dead one goes on");
        chain.second.open();
    };
    tokio::join!(kubelet.until_published(), killed);
    kubelet.assert_only_retryable();
    chain.ends(&lab, &node, &kubelet, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_daemons_worker() {
    let lab = lab!();
    let chain = Chain::new(&lab);
    let node = lab.node(NO_IDLE).await;
    let kubelet = Kubelet::new(&node, &chain.volume, Pace::of_this_run());
    let killed = async {
        let builder = chain.builder().await;
        lab.kill(&worker(&lab));
        chain.second.started_again(2).await;
        assert!(!is_alive(&lab, &builder), "two builders at once");
        chain.second.open();
    };
    tokio::join!(kubelet.until_published(), killed);
    kubelet.assert_only_retryable();
    chain.ends(&lab, &node, &kubelet, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_builder() {
    let lab = lab!();
    let pace = Pace::of_this_run();
    let chain = Chain::new(&lab);
    let node = node_with(&lab, &paced(pace)).await;
    let kubelet = Kubelet::new(&node, &chain.volume, pace);
    let killed = async {
        lab.kill(&chain.builder().await);
        chain.second.started_again(2).await;
        chain.second.open();
    };
    tokio::join!(kubelet.until_published(), killed);
    chain.ends(&lab, &node, &kubelet, 2).await;
}

/// The daemon's worker is killed and the pod is deleted: nobody's retry ends the builder.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_without_its_worker_does_not_stay() {
    let lab = lab!();
    let chain = Chain::new(&lab);
    let node = lab.node(NO_IDLE).await;
    let killed = async {
        chain.builder().await;
        lab.kill(&worker(&lab));
    };
    let (published, ()) = tokio::join!(node.publish(&chain.volume), killed);
    assert_eq!(code(published), Code::Unavailable);
    assert_ends(&lab, &node, &chain.volume).await;
}

/// Nix tells a worker by a signal, which one that is about to wait for its builder does not hear; a stopped one
/// hears nothing either.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_hear_that_its_client_has_gone_does_not_stay() {
    let lab = lab!();
    let chain = Chain::new(&lab);
    let node = lab.node(&[NO_IDLE, &["--cancel-grace", "0s"]].concat()).await;
    let stopped = async {
        chain.builder().await;
        lab.ok("sh", &["-euc", &format!("kill -STOP {}", worker(&lab))]);
        node.unpublish(&chain.volume).await.unwrap();
    };
    let (published, ()) = tokio::join!(node.publish(&chain.volume), stopped);
    assert_eq!(code(published), Code::Aborted);
    assert_ends(&lab, &node, &chain.volume).await;
    assert!(node.log().contains("a worker of nix-daemon outlived its client"), "{}", node.log());
}
