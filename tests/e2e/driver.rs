//! A driver that is killed, replaced, or without its API server.

use crate::cluster::{Cluster, LONG, SOON, Space, wait, wait_until};
use crate::leftovers::{OnNode, nothing_left};
use crate::programs::{deployment, package, pod, slow_package, writable};
use crate::startup::place_driver;

const ROLLOUT: [&str; 6] =
    ["-n", "nix-csi", "rollout", "status", "daemonset/nix-csi-node", "--timeout=120s"];

/// Each of these pods has a program of its volume say the word.
pub(crate) fn reads(space: &Space<'_>, pods: &[String], word: &str) {
    for pod in pods {
        let said = space.kubectl(&["exec", pod, "--", "/nix/var/result/bin/hello"]);
        assert!(said.contains(word), "{said}");
    }
}

/// Kills the driver's first process, as an out-of-memory kill of its container would.
fn kill_driver(cluster: &Cluster) {
    let script = "kill -9 $(pgrep -o -f '^/usr/bin/nix-csi node')";
    cluster.on_node(&["sh", "-c", script]);
}

fn restarts(cluster: &Cluster) -> u64 {
    let pods = cluster.json(&["-n", "nix-csi", "get", "pods"]);
    pods["items"][0]["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0)
}

#[test]
fn a_driver_that_is_killed_among_twenty_publishes_loses_none() {
    let cluster = Cluster::get();
    let space = cluster.space("killed");
    let before = restarts(&cluster);
    // Ten distinct closures, so that some are built while others are mounted.
    let pods: Vec<_> = (0..20).map(|n| format!("p-{n}")).collect();
    let expression = |n: usize| slow_package(&format!("killed-{}", n / 2), 2);
    let objects = pods.iter().enumerate();
    space.apply(objects.map(|(n, p)| pod(p, ("nixExpr", &expression(n)), "serve")).collect());
    wait_until("some of them", LONG, || (3..18).contains(&OnNode::now(&cluster).mounts.len()));
    kill_driver(&cluster);
    wait_until("the restart", LONG, || restarts(&cluster) > before);
    space.all_running("app=e2e", 20);
    assert_eq!(OnNode::now(&cluster).mounts.len(), 20);
    reads(&space, &pods, "hello from killed");
    drop(space);
    nothing_left(&cluster);
}

#[test]
fn a_rollout_to_another_image_is_not_noticed_by_pods() {
    let cluster = Cluster::get();
    let space = cluster.space("rollout");
    space.apply(vec![deployment("steady", 5, ("nixExpr", &package("rollout", "")))]);
    space.all_running("app=steady", 5);
    let pods = space.pods("app=steady");
    let before = OnNode::now(&cluster);
    for image in ["localhost/nix-csi:next", "localhost/nix-csi:e2e"] {
        let set = format!("nix-csi={image}");
        cluster.kubectl(&["-n", "nix-csi", "set", "image", "daemonset/nix-csi-node", &set]);
        cluster.kubectl(&ROLLOUT);
        reads(&space, &pods, "hello from rollout");
        assert_eq!(OnNode::now(&cluster), before, "the new driver uses what is mounted");
    }
    // The next pod of the same closure.
    space.apply(vec![pod("late", ("nixExpr", &package("rollout", "")), "hello")]);
    space.succeeded("late");
    drop(space);
    nothing_left(&cluster);
}

#[test]
fn what_was_deleted_while_there_was_no_driver_is_cleaned_by_the_next_one() {
    let cluster = Cluster::get();
    let space = cluster.space("away");
    let source = package("away", "");
    space.apply(vec![
        pod("ro", ("nixExpr", &source), "serve"),
        writable(pod("rw", ("nixExpr", &source), "serve")),
    ]);
    space.running("ro");
    space.running("rw");
    place_driver(&cluster, false);
    space.kubectl(&["delete", "pods", "--all", "--wait=false"]);
    // The kubelet can't unpublish, and nothing else takes the mounts away.
    let ended = "jsonpath={.items[*].status.containerStatuses[*].state.terminated.reason}";
    wait_until("the containers' end", SOON, || {
        let reasons = space.ask(&["get", "pods", "-o", ended]).unwrap_or_default();
        reasons.split_whitespace().count() == 2
    });
    assert_eq!(OnNode::now(&cluster).mounts.len(), 2);
    place_driver(&cluster, true);
    drop(space);
    nothing_left(&cluster);
}

/// The kubelet knows its pods, and the driver the kubelet.
#[test]
fn an_api_server_that_is_away_stops_no_mount() {
    let cluster = Cluster::get();
    let space = cluster.space("api");
    // Known to the kubelet, and built for longer than the API server's absence begins.
    space.apply(vec![pod("known", ("nixExpr", &slow_package("known", 15)), "serve")]);
    wait_until("the builder", SOON, || !OnNode::now(&cluster).builders.is_empty());
    cluster.component("stop", "kube-apiserver");
    let mounted = std::panic::catch_unwind(|| {
        wait("the mount", LONG, || {
            let found = OnNode::now(&cluster);
            (found.mounts.len() == 1).then_some(())
        });
        // A minute in all, so that watches and leases notice.
        let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        wait_until("the minute", LONG, || tokio::time::Instant::now() >= end);
    });
    cluster.component("start", "kube-apiserver");
    wait_until("the API server", LONG, || cluster.ask(&["get", "--raw", "/readyz"]).is_some());
    mounted.unwrap();
    space.running("known");
    reads(&space, &["known".to_owned()], "hello from known");
    // What happened meanwhile is told afterwards.
    wait_until("the Event", SOON, || space.why("known").contains("StoreMounted"));
    drop(space);
    nothing_left(&cluster);
}
