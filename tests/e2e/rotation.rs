//! What an operator changes while everything runs: keys in a Secret, nix.conf in a ConfigMap.

use std::process::Command;

use tokio::time::Instant;

use crate::cache::WithCache;
use crate::cluster::{Cluster, LONG, SOON, wait_until};
use crate::leftovers::{OnNode, nothing_left};
use crate::pods::root_of;
use crate::programs::{package, pod, slow_package};

const NODE: &str = "ds/nix-csi-node";
/// Of the node, as its ssh uses it.
const KEY: &str = "/run/nix-csi/mounted/private-key";
const OLD_KEY: &str = "/run/nix-csi/old-key";
/// Node and cache, each with its ConfigMap.
const CONFS: [(&str, &str); 2] =
    [(NODE, "nix-csi-nix-conf"), ("sts/nix-cache", "nix-cache-nix-conf")];

fn exec<'a>(what: &'a str, command: &[&'a str]) -> Vec<&'a str> {
    [&["-n", "nix-csi", "exec", what, "--"], command].concat()
}

/// Whether the node gets into the cache with a key.
fn logs_in(cluster: &Cluster, key: &str) -> bool {
    let ssh =
        ["timeout", "20", "ssh", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"];
    let known = "UserKnownHostsFile=/etc/nix-csi/public/known_hosts";
    let to = ["-o", known, "-o", "StrictHostKeyChecking=yes", "nix@nix-cache"];
    cluster.ask(&exec(NODE, &[&ssh[..], &to].concat())).is_some()
}

fn set_conf(cluster: &Cluster, text: &str) {
    let objects = CONFS.map(|(_, name)| {
        serde_json::json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": { "name": name, "namespace": "nix-csi" },
            "data": { "nix.conf": text },
        })
    });
    cluster.apply(&objects);
}

/// A change of a pod has the kubelet look at what is mounted into it at once, as docs/cache.md says.
fn refresh(cluster: &Cluster, n: u32) {
    let stamp = format!("nix.csi.store/refresh={n}");
    cluster.kubectl(&["-n", "nix-csi", "annotate", "pods", "--all", "--overwrite", &stamp]);
}

fn wait_for_log(cluster: &Cluster, words: &str) {
    for (what, _) in CONFS {
        wait_until(&format!("{words:?} in the log of {what}"), LONG, || {
            let log = cluster.ask(&["-n", "nix-csi", "logs", what, "--tail=-1"]);
            log.is_some_and(|log| log.contains(words))
        });
    }
}

/// The numbers of the builder's processes that last.
fn builder_of(cluster: &Cluster) -> String {
    cluster.on_node(&["pgrep", "-f", "^busybox sh -euc"])
}

#[test]
fn keys_and_settings_change_and_no_build_breaks() {
    let with = WithCache::start();
    let cluster = &with.cluster;
    let space = cluster.space("rotation");
    space.apply(vec![pod("slow", ("nixExpr", &slow_package("slow", 150)), "serve")]);
    wait_until("the builder", SOON, || !OnNode::now(cluster).builders.is_empty());
    let builder = builder_of(cluster);
    cluster.kubectl(&exec(NODE, &["cp", KEY, OLD_KEY]));
    assert!(logs_in(cluster, OLD_KEY));

    // As the head of deploy/make-keys.sh says.
    let keys = with.keys.path();
    for name in ["node", "node.pub"] {
        std::fs::remove_file(keys.join(name)).unwrap();
    }
    assert!(Command::new("deploy/make-keys.sh").arg(keys).status().unwrap().success());
    let began = Instant::now();
    cluster.kubectl(&["apply", "-k", keys.to_str().unwrap()]);
    set_conf(cluster, "sandbix = true\n");
    refresh(cluster, 1);
    wait_until("the new key to be let in, and the old one not", LONG, || {
        logs_in(cluster, KEY) && !logs_in(cluster, OLD_KEY)
    });
    println!("the key counted after {:.0?}", began.elapsed());
    wait_for_log(cluster, "unknown setting 'sandbix'");
    println!("the bad nix.conf was refused after {:.0?}", began.elapsed());
    let changed = Instant::now();
    set_conf(cluster, "extra-system-features = rotated\n");
    refresh(cluster, 2);
    wait_for_log(cluster, "started anew; what the last one does goes on");
    println!("the good nix.conf counted after {:.0?}", changed.elapsed());
    assert_eq!(builder_of(cluster), builder, "the build did not go on");

    space.apply(vec![pod("after", ("nixExpr", &package("after", "")), "serve")]);
    space.running("after");
    assert!(with.has(&root_of(cluster, "after")));
    wait_until("the slow build", LONG, || space.phase("slow") == "Running");
    // The kubelet's call ends before such a build does, and it calls again; nothing else failed.
    let path = "jsonpath={range .items[*]}{.message}{\"\\n\"}{end}";
    let warnings = ["get", "events", "--field-selector", "type=Warning", "-o", path];
    for warning in space.kubectl(&warnings).lines() {
        assert!(warning.contains("still being published"), "{warning}\n{}", space.why("slow"));
    }
    drop(space);
    cluster.kubectl(&exec(NODE, &["rm", OLD_KEY]));
    // Gone is not taken back. And this time the kubelet looks when it does.
    set_conf(cluster, "");
    for (what, _) in CONFS {
        wait_until("an empty nix.conf", LONG, || {
            let cat = ["cat", "/nix/var/nix-csi/nix.conf"];
            cluster.ask(&exec(what, &cat)).is_some_and(|text| text.is_empty())
        });
    }
    for (_, name) in CONFS {
        cluster.kubectl(&["-n", "nix-csi", "delete", "configmap", name]);
    }
    nothing_left(cluster);
}
