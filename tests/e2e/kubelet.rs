//! A kubelet that restarts.

use crate::cluster::{Cluster, LONG, SOON, wait_until};
use crate::leftovers::{OnNode, nothing_left};
use crate::programs::{deployment, package};

fn is_listed(cluster: &Cluster) -> bool {
    let names = "jsonpath={.items[*].spec.drivers[*].name}";
    cluster.kubectl(&["get", "csinodes", "-o", names]).contains("nix.csi.store")
}

#[test]
fn twenty_pods_outlive_two_restarts_of_the_kubelet() {
    let cluster = Cluster::get();
    let space = cluster.space("kubelet");
    space.apply(vec![deployment("steady", 20, ("nixExpr", &package("steady", "")))]);
    space.all_running("app=steady", 20);
    let before = OnNode::now(&cluster);
    assert_eq!(before.mounts.len(), 20);
    let pods = space.pods("app=steady");
    for _ in 0..2 {
        cluster.component("restart", "kubelet");
        wait_until("the driver's registration", LONG, || is_listed(&cluster));
        for pod in &pods {
            wait_until("an answer of the pod", SOON, || {
                let said = space.ask(&["exec", pod, "--", "/nix/var/result/bin/hello"]);
                said.is_some_and(|said| said.contains("hello from steady"))
            });
        }
        let after = OnNode::now(&cluster);
        assert_eq!(after.mounts.len(), before.mounts.len(), "nothing stacks");
        assert_eq!(after, before);
    }
    assert_eq!(space.pods("app=steady"), pods, "no pod was replaced");
    let phase = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let restarts = space.kubectl(&["get", "pods", "-o", phase]);
    assert!(restarts.split(' ').all(|count| count == "0"), "{restarts}");
    drop(space);
    nothing_left(&cluster);
}
