//! A driver that starts and ends: registration, startup taint, and its first process.

use crate::cluster::{Cluster, SOON, wait_until};
use crate::programs::DRIVER;

const TAINT: &str = "nix.csi.store/agent-not-ready";

fn is_listed(cluster: &Cluster) -> bool {
    let names = "jsonpath={.items[*].spec.drivers[*].name}";
    cluster.kubectl(&["get", "csinodes", "-o", names]).contains(DRIVER)
}

fn is_tainted(cluster: &Cluster) -> bool {
    let keys = "jsonpath={.items[*].spec.taints[*].key}";
    cluster.kubectl(&["get", "nodes", "-o", keys]).contains(TAINT)
}

#[test]
fn the_taint_goes_with_the_registration_and_the_registration_with_the_driver() {
    let cluster = Cluster::get();
    wait_until("the registration", SOON, || is_listed(&cluster));
    // No pod of the DaemonSet finds a node with this label.
    let nowhere = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":"where"}}}}}"#;
    let set = ["-n", "nix-csi", "patch", "daemonset", "nix-csi-node", "-p"];
    cluster.kubectl(&[&set[..], &[nowhere]].concat());
    wait_until("the kubelet to forget the driver", SOON, || !is_listed(&cluster));
    cluster.kubectl(&["taint", "nodes", "--all", &format!("{TAINT}=:NoSchedule")]);
    assert!(is_tainted(&cluster));
    let anywhere = r#"{"spec":{"template":{"spec":{"nodeSelector":{"no":null}}}}}"#;
    cluster.kubectl(&[&set[..], &[anywhere]].concat());
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
    let exec = ["-n", "nix-csi", "exec", "daemonset/nix-csi-node", "--"];
    cluster.kubectl(&[&exec[..], &["sh", "-c", orphan]].concat());
    let states = "cat /proc/[0-9]*/stat 2>/dev/null | grep -E '\\) Z ' || true";
    wait_until("the orphan's end", SOON, || {
        let zombies = cluster.kubectl(&[&exec[..], &["sh", "-c", states]].concat());
        let asleep = cluster.kubectl(
            &[&exec[..], &["sh", "-c", "cat /proc/[0-9]*/comm | grep -c '^sleep$' || true"]]
                .concat(),
        );
        zombies.trim().is_empty() && asleep.trim() == "0"
    });
}
