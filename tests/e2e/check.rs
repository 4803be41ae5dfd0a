//! `nix-csi check`, as a person runs it: green, and red with the reason.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::cache::WithCache;
use crate::cluster::{Cluster, LONG, SOON, wait, wait_until};
use crate::leftovers::nothing_left;
use crate::policy::Written;

const NODES: &str = "daemonset/nix-csi-node";
const REGISTRATION: &str = "NIX_CSI_REGISTRATION_DIR";

/// What a check said, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    rows: Vec<Value>,
    error: String,
}

fn check(cluster: &Cluster, args: &[&str]) -> Said {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/nix-csi");
    let mut command = Command::new(program);
    command.args(["check", "-o", "json", "--timeout", "60s", "--kubeconfig"]);
    let output = command.arg(cluster.dir().join("admin.kubeconfig")).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {error}"));
    Said { code: output.status.code(), rows: said["checks"].as_array().unwrap().clone(), error }
}

impl Said {
    /// Result and reason of the check whose name begins so.
    fn row(&self, what: &str) -> (&str, &str) {
        let is_it = |row: &&Value| row["check"].as_str().unwrap().starts_with(what);
        let row = self.rows.iter().find(is_it).unwrap_or_else(|| panic!("{what}: {self:?}"));
        (row["result"].as_str().unwrap(), row["found"].as_str().unwrap())
    }

    fn is(&self, what: &str, result: &str) -> bool {
        self.row(what).0 == result
    }

    fn is_red(&self, what: &str, reason: &str) -> bool {
        let (result, found) = self.row(what);
        self.code == Some(1) && result == "failed" && found.contains(reason)
    }
}

/// Repeats the check until it says so; what it said last is shown if it never does.
fn until(cluster: &Cluster, what: &str, mut is_so: impl FnMut(&Said) -> bool) -> Said {
    let mut last = String::new();
    wait(what, LONG, || {
        let said = check(cluster, &[]);
        let shown = format!("{said:?}");
        if shown != last {
            println!("{shown}");
            last = shown;
        }
        is_so(&said).then_some(said)
    })
}

fn no_canary_is_left(cluster: &Cluster) {
    let pods = ["get", "pods", "-A", "-l", "app.kubernetes.io/name=nix-csi-check", "-o", "name"];
    wait_until("the canaries to go", SOON, || cluster.kubectl(&pods).trim().is_empty());
}

#[test]
fn an_installation_without_a_cache_is_green() {
    let cluster = Cluster::get();
    let said = until(&cluster, "a green check", |said| said.code == Some(0));
    for what in ["CSIDriver", "node DaemonSet", "driver registered", "canary on "] {
        assert!(said.is(what, "ok"), "{what}: {said:?}");
    }
    for what in ["cache StatefulSet", "cache reachable", "builders"] {
        assert!(said.is(what, "skipped"), "{what}: {said:?}");
    }
    assert!(check(&cluster, &["--all-nodes"]).is("canary on ", "ok"));
    no_canary_is_left(&cluster);
    nothing_left(&cluster);
}

/// Sets where the driver registers itself.
fn set_registration(cluster: &Cluster, dir: &str) {
    let set = format!("{REGISTRATION}={dir}");
    cluster.kubectl(&["-n", "nix-csi", "set", "env", NODES, &set]);
}

/// The kubelet's directory again when dropped.
struct Elsewhere<'a>(&'a Cluster);

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        set_registration(self.0, "/var/lib/kubelet/plugins_registry");
        self.0.kubectl(&["-n", "nix-csi", "rollout", "status", NODES, "--timeout=180s"]);
    }
}

#[test]
fn a_driver_that_is_not_registered_is_red_with_the_nodes_name() {
    let cluster = Cluster::get();
    let elsewhere = Elsewhere(&cluster);
    // A directory where no kubelet looks.
    set_registration(&cluster, "/run/nix-csi");
    // The kubelet forgets it, and the pod is there for a while before it counts as not ready.
    let said = until(&cluster, "all of it in red", |said| {
        said.is_red("driver registered", "not on 1 of 1")
            && said.is_red("node DaemonSet", "0 of 1")
            && said.is_red("canary on ", "not found in the list of registered CSI drivers")
    });
    assert!(said.is_red("driver registered", "does not list nix.csi.store for "), "{said:?}");
    assert!(said.error.contains("checks failed"), "{said:?}");
    drop(elsewhere);
    no_canary_is_left(&cluster);
    nothing_left(&cluster);
}

#[test]
fn a_canary_that_the_policy_refuses_is_red_with_the_refusal() {
    let cluster = Cluster::get();
    let policy = Written(&cluster);
    policy.write("preset: strict");
    let said = until(&cluster, "the refusal", |said| said.is_red("canary on ", "refuses this to"));
    assert!(said.is_red("canary on ", "FailedMount"), "{said:?}");
    assert!(said.is_red("canary on ", "namespace nix-csi"), "{said:?}");
    assert!(said.is("driver registered", "ok"), "{said:?}");
    drop(policy);
    until(&cluster, "a green check", |said| said.code == Some(0));
    no_canary_is_left(&cluster);
    nothing_left(&cluster);
}

/// Who may log in at the cache.
fn authorize(cluster: &Cluster, data: &Value, n: u32) {
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "nix-csi-cache-authorized", "namespace": "nix-csi" },
        "data": data,
    });
    cluster.apply(&[object]);
    // The kubelet looks at what is mounted when a pod changes.
    let stamp = format!("nix.csi.store/refresh={n}");
    cluster.kubectl(&["-n", "nix-csi", "annotate", "pods", "--all", "--overwrite", &stamp]);
}

/// Tries now what waits.
fn retry_uploads(cluster: &Cluster) {
    let uploads = ["-n", "nix-csi", "exec", NODES, "--", "nix-csi", "uploads"];
    let said = cluster.json(&uploads);
    let waiting = said["uploads"].as_array().unwrap().iter();
    for path in waiting.map(|upload| upload["path"].as_str().unwrap()) {
        // One that has gone up meanwhile waits no more.
        cluster.ask(&[&uploads[..], &["retry", path]].concat());
    }
}

#[test]
fn a_cache_is_green_and_red_when_it_refuses_the_key_and_when_it_is_down() {
    let with = WithCache::start();
    let cluster = &with.cluster;
    let said = until(cluster, "a green check", |said| {
        said.code == Some(0) && said.is("cache reachable", "ok") && said.is("builders", "ok")
    });
    assert!(said.is("cache StatefulSet", "ok"), "{said:?}");

    // A key of nobody here in place of the node's.
    let known = cluster.json(&["-n", "nix-csi", "get", "configmap", "nix-csi-cache-authorized"]);
    let other = with.keys.path().join("other");
    let other = other.to_str().unwrap();
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", other]).status();
    assert!(made.unwrap().success());
    let public = std::fs::read_to_string(format!("{other}.pub")).unwrap();
    let mut data = known["data"].clone();
    for text in data.as_object_mut().unwrap().values_mut() {
        *text = Value::from(public.as_str());
    }
    authorize(cluster, &data, 1);
    let said =
        until(cluster, "a refused key", |said| said.is_red("cache reachable", "key-refused"));
    assert!(said.is("cache StatefulSet", "ok") && said.is("canary on ", "ok"), "{said:?}");

    // What waits after a failure would be tried again in minutes only.
    authorize(cluster, &known["data"], 2);
    wait_until("the key to be let in again", LONG, || {
        retry_uploads(cluster);
        check(cluster, &[]).is("cache reachable", "ok")
    });

    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        cluster.kubectl(&["-n", "nix-csi", "scale", "statefulset/nix-cache", &replicas]);
    };
    scale("0");
    let said = until(cluster, "a cache that is down", |said| {
        said.is_red("cache reachable", "unreachable")
    });
    assert!(said.is_red("cache StatefulSet", "scaled to 0"), "{said:?}");
    assert!(said.is("canary on ", "ok"), "the node builds by itself: {said:?}");
    scale("1");
    no_canary_is_left(cluster);
    nothing_left(cluster);
}
