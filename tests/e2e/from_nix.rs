//! An image as Nix builds it, whose programs an init container copies into the store; and the other one again.

use crate::cache::WithCache;
use crate::cluster::{Cluster, SOON, wait_until};
use crate::driver::reads;
use crate::leftovers::{OnNode, nothing_left};
use crate::pods::root_of;
use crate::programs::{package, pod, writable};

const NODE: &str = "daemonset/nix-csi-node";
const CACHE: &str = "statefulset/nix-cache";
/// Of the node's store.
const STORE: &str = "/var/lib/nix-csi/nix";

/// Takes away what the init container has left on the node, as `nix-csi clean` does.
struct Bootstrapped<'c>(&'c Cluster);

impl Drop for Bootstrapped<'_> {
    fn drop(&mut self) {
        let roots = format!("{STORE}/var/nix/gcroots/nix-csi/bootstrap");
        self.0.on_node(&["rm", "-rf", &roots, &format!("{STORE}/var/result")]);
    }
}

/// What volumes have there. Roots are the environment's too, and those of uploads that are not done.
fn of_volumes(cluster: &Cluster) -> OnNode {
    OnNode { roots: Vec::new(), ..OnNode::now(cluster) }
}

/// In the driver's container.
fn exec(cluster: &Cluster, workload: &str, script: &str) -> String {
    let exec = ["-n", "nix-csi", "exec", workload, "-c", "nix-csi", "--", "sh", "-c", script];
    cluster.kubectl(&exec).trim().to_owned()
}

#[test]
fn an_image_of_nixs_takes_over_from_another_one_and_gives_back() {
    let with = WithCache::start();
    let cluster = &with.cluster;
    let bootstrapped = Bootstrapped(cluster);
    let space = cluster.space("from-nix");
    space.apply(vec![pod("before", ("nixExpr", &package("before", "")), "serve")]);
    space.running("before");
    let pods = ["before".to_owned()];
    let before = of_volumes(cluster);

    cluster.upgrade(&["values.yaml", "cache-values.yaml", "from-nix-values.yaml"]);
    with.rolled_out();
    let mut environments = Vec::new();
    for workload in [NODE, CACHE] {
        // The image has none in /usr/bin, and the store has them.
        let where_ =
            "command -v nix; ! command -v /usr/bin/nix >/dev/null && readlink /nix/var/result";
        let said = exec(cluster, workload, where_);
        let (nix, environment) = said.split_once('\n').unwrap();
        assert_eq!(nix, "/nix/var/result/bin/nix", "{workload}");
        assert!(environment.ends_with("-environment"), "{workload}: {environment}");
        let root =
            exec(cluster, workload, "readlink /nix/var/nix/gcroots/nix-csi/bootstrap/current");
        assert_eq!(root, environment, "{workload}");
        environments.push(root);
    }
    assert_eq!(environments[0], environments[1]);
    reads(&space, &pods, "hello from before");
    assert_eq!(of_volumes(cluster), before, "the new driver uses what is mounted");

    with.knows_its_builders();
    // Evaluated on the node, built there by way of the cache, which has it then; and a file system of its own.
    let mut sized = writable(pod("sized", ("nixExpr", &package("between", "")), "serve"));
    sized["spec"]["volumes"][0]["csi"]["volumeAttributes"]["size"] = "64Mi".into();
    space.apply(vec![sized]);
    space.running("sized");
    reads(&space, &["sized".to_owned()], "hello from between");
    assert!(with.has(&root_of(cluster, "sized")));
    space.delete_pod("sized");

    cluster.upgrade(&["values.yaml", "cache-values.yaml"]);
    with.rolled_out();
    assert_eq!(exec(cluster, NODE, "command -v nix"), "/usr/bin/nix");
    reads(&space, &pods, "hello from before");
    wait_until("the old driver to have what was mounted", SOON, || of_volumes(cluster) == before);
    space.apply(vec![pod("late", ("nixExpr", &package("between", "")), "hello")]);
    space.succeeded("late");
    drop(space);
    drop(bootstrapped);
    nothing_left(cluster);
}
