//! Pods that are deleted while their volume is built.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::{Cluster, SOON, wait_until};
use crate::leftovers::{OnNode, nothing_left};
use crate::programs::{pod, slow_package};

const GONE: Duration = Duration::from_secs(5);

fn builder_runs(cluster: &Cluster, count: usize) {
    wait_until("the builders", SOON, || OnNode::now(cluster).builders.len() >= count);
}

#[test]
fn a_pod_that_is_deleted_during_a_build_is_gone_at_once() {
    let cluster = Cluster::get();
    let space = cluster.space("deleted");
    for grace in ["0", "1"] {
        let name = format!("slow-{grace}");
        let mut slow = pod(&name, ("nixExpr", &slow_package(&name, 600)), "hello");
        slow["spec"]["terminationGracePeriodSeconds"] = grace.parse::<u32>().unwrap().into();
        space.apply(vec![slow]);
        builder_runs(&cluster, 1);
        let began = Instant::now();
        space.delete_pod(&name);
        assert!(began.elapsed() < GONE, "the pod took {:?}", began.elapsed());
        // The volume goes with it, and the build that nobody else waits for after its grace.
        nothing_left(&cluster);
        assert!(began.elapsed() < SOON, "the rest took {:?}", began.elapsed());
    }
}

#[test]
fn a_namespace_goes_with_its_pods_and_their_builds() {
    let cluster = Cluster::get();
    let space = cluster.space("doomed");
    let names: Vec<_> = (0..3).map(|n| format!("slow-{n}")).collect();
    space
        .apply(names.iter().map(|n| pod(n, ("nixExpr", &slow_package(n, 600)), "hello")).collect());
    builder_runs(&cluster, 3);
    let began = Instant::now();
    drop(space);
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    nothing_left(&cluster);
}
