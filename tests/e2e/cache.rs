//! A cache beside the nodes, from the chart and keys of the project.

use serde_json::{Value, json};

use crate::cluster::{Cluster, LONG, SOON, Space, wait_until};
use crate::leftovers::nothing_left;
use crate::pods::root_of;
use crate::programs::{package, pod};

/// What Nix builds on these nodes, as it says itself.
pub(crate) const SYSTEMS: &str = "i686-linux,x86_64-linux";
const CACHE: [&str; 4] = ["-n", "nix-csi", "exec", "nix-cache-0"];

/// The cluster with a cache; without one again when dropped.
pub(crate) struct WithCache {
    pub(crate) cluster: Cluster,
    /// What deploy/make-keys.sh has made.
    pub(crate) keys: tempfile::TempDir,
}

impl WithCache {
    pub(crate) fn start() -> Self {
        let cluster = Cluster::get();
        let keys = tempfile::tempdir().unwrap();
        let make = std::process::Command::new("deploy/make-keys.sh").arg(keys.path()).status();
        assert!(make.unwrap().success());
        cluster.kubectl(&["apply", "-k", keys.path().to_str().unwrap()]);
        let this = Self { cluster, keys };
        this.cluster.kubectl(&["apply", "-f", "tests/e2e/install/volume.yaml"]);
        this.cluster.upgrade(&["values.yaml", "cache-values.yaml"]);
        this.rolled_out();
        this
    }

    /// Waits until node and cache are what the release says.
    pub(crate) fn rolled_out(&self) {
        for what in ["daemonset/nix-csi-node", "statefulset/nix-cache"] {
            let status = ["-n", "nix-csi", "rollout", "status", what, "--timeout=180s"];
            if self.cluster.ask(&status).is_none() {
                let said = self.cluster.ask(&["-n", "nix-csi", "get", "pods,events"]);
                let log = self.cluster.ask(&["-n", "nix-csi", "logs", "nix-cache-0", "--tail=30"]);
                panic!(
                    "{what} is not there:\n{}\n{}",
                    said.unwrap_or_default(),
                    log.unwrap_or_default()
                );
            }
        }
    }

    /// The machines file, each line by its fields.
    fn machines(&self) -> Vec<Vec<String>> {
        let text = [&CACHE[..], &["--", "cat", "/run/nix-csi/machines"]].concat();
        let text = self.cluster.ask(&text).unwrap_or_default();
        text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    fn addresses(&self) -> Vec<String> {
        let host = |line: Vec<String>| line[0].trim_start_matches("ssh-ng://nix@").to_owned();
        let mut all: Vec<_> = self.machines().into_iter().map(host).collect();
        all.sort();
        all
    }

    /// Addresses of the pods that the cache's selector finds.
    fn pods(&self) -> Vec<String> {
        let path = "jsonpath={.items[*].status.podIP}";
        let said = self.cluster.kubectl(&[
            "-n",
            "nix-csi",
            "get",
            "pods",
            "-l",
            "app=nix-csi-node",
            "-o",
            path,
        ]);
        let mut all: Vec<_> = said.split_whitespace().map(str::to_owned).collect();
        all.sort();
        all
    }

    pub(crate) fn knows_its_builders(&self) {
        wait_until("the machines file", SOON, || {
            !self.pods().is_empty() && self.addresses() == self.pods()
        });
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        let check = ["--", "nix-store", "--check-validity", path];
        self.cluster.ask(&[&CACHE[..], &check].concat()).is_some()
    }
}

impl Drop for WithCache {
    fn drop(&mut self) {
        const MADE: [&str; 3] = ["pod/other", "deployment/decoys", "pod/nix-cache-0"];
        let delete = ["delete", "--ignore-not-found", "--timeout=60s"];
        let within = ["-n", "nix-csi"];
        self.cluster.upgrade(&["values.yaml"]);
        self.cluster.kubectl(&[&within[..], &delete, &MADE].concat());
        self.cluster.kubectl(&[&within[..], &delete, &["pvc/store-nix-cache-0"]].concat());
        self.cluster.kubectl(&[&delete[..], &["pv/nix-cache-store"]].concat());
        let rollout = ["rollout", "status", "daemonset/nix-csi-node", "--timeout=180s"];
        self.cluster.kubectl(&[&within[..], &rollout].concat());
    }
}

/// Pods that look like nodes to the cache, and are none.
fn decoys(replicas: usize) -> Value {
    let labels = json!({ "app": "nix-csi-node", "decoy": "yes" });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "decoys", "namespace": "nix-csi" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": { "nix.csi.store/builder-features": "decoy" },
                },
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main",
                        "image": "localhost/busybox:e2e",
                        "imagePullPolicy": "Never",
                        "command": ["/bin/busybox", "sleep", "100000"],
                    }],
                },
            },
        },
    })
}

/// A node role of its own in a pod, with a store of its own and no kubelet.
fn other_node() -> Value {
    let from = |name: &str, key: &str| json!({ "name": name, "value": key });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "other", "namespace": "nix-csi" },
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "localhost/nix-csi:e2e",
                "imagePullPolicy": "Never",
                "args": ["node"],
                "securityContext": { "privileged": true },
                "env": [
                    from("NIX_CSI_CACHE", "ssh-ng://nix@nix-cache"),
                    from("NIX_CSI_SSH_KEY", "/keys/ssh"),
                    from("NIX_CSI_SSH_KNOWN_HOSTS", "/public/known_hosts"),
                    from("NIX_CSI_NIX_OPTIONS", "substituters="),
                    { "name": "NIX_CSI_TRUSTED_PUBLIC_KEYS", "valueFrom": { "configMapKeyRef":
                        { "name": "nix-csi-public-keys", "key": "signing.pub" } } },
                ],
                "volumeMounts": [
                    { "name": "keys", "mountPath": "/keys" },
                    { "name": "public", "mountPath": "/public" },
                    { "name": "store", "mountPath": "/nix" },
                ],
            }],
            "volumes": [
                { "name": "keys", "secret": { "secretName": "nix-csi-node-keys" } },
                { "name": "public", "configMap": { "name": "nix-csi-public-keys" } },
                { "name": "store", "emptyDir": {} },
            ],
        },
    })
}

#[test]
fn one_builds_for_all_and_the_machines_file_follows_the_pods() {
    let with = WithCache::start();
    let cluster = &with.cluster;
    with.knows_its_builders();
    let machines = with.machines();
    let [_, system, key, jobs, speed, .., host_key] = &machines[0][..] else {
        panic!("{machines:?}")
    };
    assert_eq!((machines[0].len(), system.as_str()), (8, SYSTEMS));
    let cores = std::thread::available_parallelism().unwrap().to_string();
    assert_eq!(
        (key.as_str(), jobs.as_str(), speed.as_str()),
        ("/run/nix-csi/mounted/private-key", &*cores, "1")
    );
    assert!(machines[0][5].contains("big-parallel"), "{machines:?}");
    assert!(host_key.len() > 60, "{host_key}");

    // More pods, fewer pods, and another one in place of one that was killed.
    cluster.apply(&[decoys(3)]);
    wait_until("the decoys", SOON, || {
        with.addresses().len() == 4 && with.addresses() == with.pods()
    });
    assert_eq!(with.machines().iter().filter(|line| line[5] == "decoy").count(), 3);
    cluster.kubectl(&["-n", "nix-csi", "delete", "deployment", "decoys", "--wait=true"]);
    wait_until("the decoys to go", SOON, || with.addresses().len() == 1);
    let before = with.addresses();
    let drivers = ["-n", "nix-csi", "delete", "pod", "-l", "app=nix-csi-node", "--wait=true"];
    cluster.kubectl(&drivers);
    wait_until("the next driver", LONG, || {
        let now = with.addresses();
        now.len() == 1 && now != before && now == with.pods()
    });

    // Built by way of the cache, which has it then.
    let space: Space<'_> = cluster.space("cache");
    space.apply(vec![pod("first", ("nixExpr", &package("cached", "")), "serve")]);
    space.running("first");
    let path = root_of(cluster, "first");
    assert!(with.has(&path), "{path}");
    let log = cluster.kubectl(&["-n", "nix-csi", "logs", "nix-cache-0"]);
    assert!(log.contains("Accepted publickey for nix"), "{log}");
    assert!(!log.contains("no builder"), "{log}");

    // On another store it is fetched: nobody can build a mere path.
    cluster.apply(&[other_node()]);
    wait_until("the mount on another store", LONG, || {
        let mount =
            ["-n", "nix-csi", "exec", "other", "--", "nix-csi", "mount", "--store-path", &path];
        cluster.ask(&[&mount[..], &["/mnt"]].concat()).is_some()
    });
    let run = ["-n", "nix-csi", "exec", "other", "--", "cat", "/mnt/var/result/share/text"];
    assert_eq!(cluster.kubectl(&run).trim(), "of cached");
    cluster.kubectl(&["-n", "nix-csi", "delete", "pod", "other", "--wait=true"]);
    drop(space);
    nothing_left(cluster);
}
