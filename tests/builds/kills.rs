//! `kill -9` in the middle of a build whose first half is done: whoever dies, the kubelet's retry
//! succeeds, the first half is not done again, and nothing stays.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::thread::{JoinHandle, spawn};

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Gate, Kubelet, Lab, NO_IDLE, Pace, code, until};
use crate::world::{
    Chain, PATHS, assert_ends, assert_no_processes, daemon, filled, is_alive, node_with, paced,
    with_caches, worker,
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

/// Stands where the daemon listens, and hangs up on the first who comes, as a daemon does that is told to end when it
/// has just accepted a connection. Then the daemon is there again.
fn hang_up_once(lab: &Lab) -> JoinHandle<()> {
    let socket = lab.path("run/nix-daemon/socket");
    let kept = socket.with_file_name("kept");
    fs::rename(&socket, &kept).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.read_exact(&mut [0]).unwrap();
        fs::rename(&kept, &socket).unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_daemon_that_has_just_accepted_a_fetchs_connection() {
    let lab = lab!();
    let (cache, root) = filled(&lab, PATHS).await;
    let node = node_with(&lab, &with_caches(Pace::of_this_run(), &[&cache])).await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let hung_up = hang_up_once(&lab);
    node.publish(&volume).await.unwrap();
    hung_up.join().unwrap();
    assert!(node.log().contains("once more with a new connection"), "{}", node.log());
    assert_ends(&lab, &node, &volume).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_daemon_that_has_just_accepted_an_evaluations_connection() {
    let lab = lab!();
    let gate = Gate::new(&lab, "open");
    gate.open();
    let node = lab.node(NO_IDLE).await;
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    let hung_up = hang_up_once(&lab);
    node.publish(&volume).await.unwrap();
    hung_up.join().unwrap();
    assert!(node.log().contains("an evaluation lost what it needs"), "{}", node.log());
    assert_eq!(gate.runs(), 1);
    assert_ends(&lab, &node, &volume).await;
}
