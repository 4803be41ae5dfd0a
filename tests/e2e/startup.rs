//! A driver that starts and ends: registration, startup taint, and its first process.

use crate::cluster::{Cluster, SOON, in_driver, wait_until};
use crate::programs::DRIVER;

const TAINT: &str = "nix.csi.store/agent-not-ready";

/// Whether the kubelet has registered the driver.
pub(crate) fn is_listed(cluster: &Cluster) -> bool {
    let names = "jsonpath={.items[*].spec.drivers[*].name}";
    cluster.kubectl(&["get", "csinodes", "-o", names]).contains(DRIVER)
}

fn is_tainted(cluster: &Cluster) -> bool {
    let keys = "jsonpath={.items[*].spec.taints[*].key}";
    cluster.kubectl(&["get", "nodes", "-o", keys]).contains(TAINT)
}

/// Puts the driver on the node, or takes it away, until the kubelet knows.
pub(crate) fn place_driver(cluster: &Cluster, there: bool) {
    // No node has this label.
    let value = if there { "null" } else { "\"where\"" };
    let spec =
        format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"no":{value}}}}}}}}}}}"#);
    cluster.kubectl(&["-n", "nix-csi", "patch", "daemonset", "nix-csi-node", "-p", &spec]);
    let what = if there { "the registration" } else { "the kubelet to forget the driver" };
    wait_until(what, SOON, || is_listed(cluster) == there);
}

#[test]
fn the_taint_goes_with_the_registration_and_the_registration_with_the_driver() {
    let cluster = Cluster::get();
    wait_until("the registration", SOON, || is_listed(&cluster));
    place_driver(&cluster, false);
    cluster.kubectl(&["taint", "nodes", "--all", &format!("{TAINT}=:NoSchedule")]);
    assert!(is_tainted(&cluster));
    place_driver(&cluster, true);
    wait_until("the taint to go", SOON, || !is_tainted(&cluster));
    assert!(is_listed(&cluster), "the taint goes after the registration");
    cluster.kubectl(&[
        "-n",
        "nix-csi",
        "rollout",
        "status",
        "daemonset/nix-csi-node",
        "--timeout=60s",
    ]);
}

/// Whoever a container leaves behind is its first process's to wait for.
#[test]
fn no_zombie_stays_in_the_drivers_container() {
    let cluster = Cluster::get();
    // An orphan: the shell that started it ends before it.
    let orphan = "(sleep 0.2 &) ; exit 0";
    let run = |script| cluster.kubectl(&in_driver(&["sh", "-c", script]));
    run(orphan);
    let states = "cat /proc/[0-9]*/stat 2>/dev/null | grep -E '\\) Z ' || true";
    wait_until("the orphan's end", SOON, || {
        let zombies = run(states);
        let asleep = run("cat /proc/[0-9]*/comm | grep -c '^sleep$' || true");
        zombies.trim().is_empty() && asleep.trim() == "0"
    });
}
