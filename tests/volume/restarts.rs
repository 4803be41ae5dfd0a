//! Nodes and daemons that end and come back.

use std::fs;

use crate::lab;
use crate::lab::{Lab, eventually};
use crate::world::{
    Gate, NO_IDLE, assert_all_ok, assert_nothing_left, assert_shows, publish_all, unpublish_all,
    volumes,
};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_volumes_outlive_their_node() {
    let lab = lab!();
    let roots = ["a", "b"].map(|seed| lab.unrooted(&["--argstr", "seed", seed]));
    let mut node = lab.node(NO_IDLE).await;
    let mut all = volumes(&lab, "a", &[("storePath", &roots[0])], 10);
    all.extend(volumes(&lab, "b", &[("storePath", &roots[1])], 10));
    all.iter_mut().step_by(4).for_each(|v| v.readonly = false);
    assert_all_ok(&publish_all(&node, &all).await);
    let mounts = lab.mount_lines_below(&lab.path("targets"));
    let before = node.status().await.volumes;
    let readable = || {
        for (n, volume) in all.iter().enumerate() {
            assert_shows(&lab, volume, &roots[n / 10]);
        }
    };

    for polite in [false, true] {
        if polite {
            assert_eq!(node.stop(), Some(0));
        } else {
            node.kill();
        }
        // A collector has its way while nobody is there; the roots are.
        lab.ok("nix-store", &["--gc"]);
        readable();
        node = lab.node(NO_IDLE).await;
        let mut now = node.status().await;
        // How the closure came to be there is not recorded.
        now.volumes.iter_mut().zip(&before).for_each(|(v, b)| {
            v.origin.clone_from(&b.origin);
            // The record is from just before the mount, and a second may end in between.
            assert!(b.published_at.abs_diff(v.published_at) < 5);
            v.published_at = b.published_at;
        });
        assert_eq!(now.volumes, before);
        assert_eq!(now.views.iter().map(|v| v.users).collect::<Vec<_>>(), [10, 10]);
        assert_all_ok(&publish_all(&node, &all).await);
        assert_eq!(lab.mount_lines_below(&lab.path("targets")), mounts);
        lab.ok("nix-store", &["--gc"]);
        readable();
    }
    assert_all_ok(&unpublish_all(&node, &all).await);
    assert_nothing_left(&lab);
    lab.ok("nix-store", &["--gc"]);
    assert!(roots.iter().all(|root| !lab.run("ls", &[root]).status.success()));
}

/// An unpublish may reach a node that has only just started.
#[tokio::test(flavor = "multi_thread")]
async fn calls_to_a_starting_node_meet_recovered_volumes() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(NO_IDLE).await;
    let all = volumes(&lab, "v", &[("storePath", &root)], 20);
    assert_all_ok(&publish_all(&node, &all).await);
    let mounts = lab.mount_lines_below(&lab.path("targets"));
    node.kill();
    let node = lab.starting_node(NO_IDLE);
    eventually("the socket", || std::os::unix::net::UnixStream::connect(&node.csi).is_ok());
    let (again, gone) =
        tokio::join!(publish_all(&node, &all[..10]), unpublish_all(&node, &all[10..]));
    assert_all_ok(&again);
    assert_all_ok(&gone);
    let left = lab.mount_lines_below(&lab.path("targets"));
    assert_eq!(left.len(), 10);
    assert!(left.iter().all(|line| mounts.contains(line)));
    assert_all_ok(&unpublish_all(&node, &all).await);
    assert_nothing_left(&lab);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_of_a_run_directory_is_refused() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();
    let mut second = lab.starting_node(&[]);
    eventually("the second node's end", || second.ended());
    assert!(!second.wait().success());
    assert!(node.log().contains("another nix-csi runs with --run-dir"));
    // The first one is still there, at its sockets' paths too.
    assert_eq!(node.probe().await, Ok(true));
    node.unpublish(&volume).await.unwrap();
}

/// The daemon's pid in the machine, other than `last`.
fn daemon_after(lab: &Lab, last: &str) -> String {
    let mut pid = String::new();
    eventually("a daemon", || {
        let text = fs::read_to_string(lab.path("run/nix-daemon.pid")).unwrap_or_default();
        text.split(' ').next().unwrap().clone_into(&mut pid);
        !pid.is_empty() && pid != last
    });
    pid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_daemon_is_started_again() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let gate = Gate::new(&lab, "after");
    gate.open();
    let node = lab.node(&[]).await;
    let warm = lab.volume("warm", &[("storePath", &root)]);
    node.publish(&warm).await.unwrap();
    let mut daemon = daemon_after(&lab, "");
    for round in 0..2 {
        lab.kill(&daemon);
        let volume = lab.volume(&format!("warm-{round}"), &[("storePath", &root)]);
        node.publish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
        daemon = daemon_after(&lab, &daemon);
        node.ready().await;
    }
    let expression = gate.expression();
    let volume = lab.volume("built", &[("nixExpr", &expression)]);
    node.publish(&volume).await.unwrap();
    assert_eq!(gate.runs(), 1);
    assert!(node.metrics().contains("nixcsi_child_exits_total{child=\"nix-daemon\"} 2"));
}

/// The successor ends what the dead node's build left, and the retry builds once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_was_under_way_is_begun_again() {
    let lab = lab!();
    let gate = Gate::new(&lab, "begun");
    let node = lab.node(NO_IDLE).await;
    let expression = gate.expression();
    let volume = lab.volume("one", &[("nixExpr", &expression)]);
    let kill = async {
        gate.started().await;
        let is_node = |line: &String| line.contains("nix-csi node ");
        let node = lab.processes().into_iter().find(is_node).unwrap();
        lab.kill(node.split(' ').next().unwrap());
    };
    let (published, ()) = tokio::join!(node.publish(&volume), kill);
    assert!(published.is_err());
    drop(node);
    let node = lab.node(NO_IDLE).await;
    eventually("the old build's processes to end", || gate.processes(&lab).is_empty());
    assert_eq!(node.status().await.volumes, []);
    gate.open();
    node.publish(&volume).await.unwrap();
    assert_eq!(gate.runs(), 2);
    node.unpublish(&volume).await.unwrap();
    assert_nothing_left(&lab);
}
