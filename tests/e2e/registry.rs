//! The builders' registry of a real cache with a real API server: two thousand pods that change all the
//! time, and builders that are reached by their names.

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::answerer::Answerer;
use crate::cache::SYSTEMS;
use crate::cluster::{Cluster, LONG, SOON, wait, wait_until};
use crate::crowd::{Crowd, SIZE};
use crate::own_cache::{ENCODED, HOST_KEY, KEY, Meter, OwnCache};

const LOST: &str = "nixcsi_registry_watch_lost_total";
const NOT_READY: &str = "nixcsi_builders{state=\"not-ready\"}";

fn secret(name: &str, entries: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": entries,
    })
}

/// All that can happen to a pod, to many of them at once, while the API server restarts in between.
fn churn(cluster: &Cluster, crowd: &mut Crowd) {
    crowd.create(SIZE / 2..SIZE);
    crowd.set_ready(true, |id| id % 10 != 0);
    for third in 0..3 {
        crowd.set_ready(false, |id| id % 3 == third);
        crowd.annotate(|id| id % 4 == third);
        crowd.set_ready(true, |id| id % 3 == third && id % 10 != 0);
    }
    crowd.delete(|id| id % 7 == 6);
    std::thread::scope(|scope| {
        scope.spawn(|| cluster.component("restart", "kube-apiserver"));
        for round in 0..4 {
            crowd.set_ready(false, |id| id % 4 == round);
            crowd.relocate(|id| id % 5 == round);
            crowd.set_ready(true, |id| id % 4 == round && id % 11 != 0);
        }
    });
}

/// What a watch alone tells: no list comes after it that would heal what was not understood.
fn churn_under_a_watch(crowd: &mut Crowd) {
    crowd.delete(|id| id % 7 == 5);
    crowd.unlabel(|id| id % 13 == 4);
    crowd.create(SIZE..SIZE + SIZE / 7);
    crowd.share_address(|id| id % 97 == 3);
    crowd.set_ready(true, |id| id >= SIZE && id % 10 != 0);
    crowd.annotate(|id| id % 4 == 3);
    crowd.set_ready(true, |id| id % 11 == 0);
}

/// A restart that leaves no doubt: the API server's first list is newer than what anybody has seen, so
/// that a watch can't go on where it was.
fn restart_with_a_later_version(cluster: &Cluster) {
    const PUT: &str = r#"{"key": "L2UyZQ=="}"#;
    const ETCD: &str = "http://127.0.0.1:2379/v3/kv/put";
    cluster.component("stop", "kube-apiserver");
    cluster.on_node(&["busybox", "wget", "-qO-", "--post-data", PUT, ETCD]);
    cluster.component("start", "kube-apiserver");
}

/// Pages of pods of one namespace that the API server has listed since it started. Nobody else asks so.
fn lists(cluster: &Cluster) -> u64 {
    let text = cluster.kubectl(&["get", "--raw", "/metrics"]);
    let is_list = |line: &&str| {
        line.starts_with("apiserver_request_total{code=\"200\"")
            && [r#"resource="pods",scope="namespace""#, r#"verb="LIST""#]
                .iter()
                .all(|part| line.contains(part))
    };
    let counts = text.lines().filter(is_list);
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn two_thousand_pods_that_change_all_the_time_are_few_writes_and_the_right_file() {
    let cluster = Cluster::get();
    let space = cluster.space("crowd");
    let mut crowd = Crowd::new(&space);
    let answerer = Answerer::start(&cluster, crowd.runtime());
    // Some are there before the cache.
    crowd.create(0..SIZE / 2);
    crowd.set_ready(true, |id| id < 100);
    space.apply(vec![secret("keys", &json!({ "builder-host.pub": HOST_KEY }))]);
    let cache = OwnCache::start(
        &space,
        &[
            ("NIX_CSI_AUTHORIZED_KEYS", "/keys"),
            ("NIX_CSI_BUILDER_HOST_KEY", "/keys/builder-host.pub"),
            ("NIX_CSI_BUILDER_JOBS", "3"),
        ],
    );
    cache.says("those of before", &crowd.machines(KEY, ENCODED, |_| false));

    let (before, mut meter) = (crowd.changes, Meter::start(&cache));
    churn(&cluster, &mut crowd);
    cache.says("after a restart", &crowd.machines(KEY, ENCODED, |_| false));
    churn_under_a_watch(&mut crowd);
    let expected = crowd.machines(KEY, ENCODED, |_| false);
    cache.says("after the churn", &expected);
    wait_until("all to be counted", LONG, || cache.builders() == crowd.len());
    let changes = crowd.changes - before;
    let writes = meter.read(&format!("{changes} changes of {SIZE} pods"));
    // Every 2 s while something changes.
    assert!((1..changes / 10).contains(&writes), "{writes} writes for {changes} changes");
    assert!(cache.metric(LOST) > 0, "the API server was away");
    let machines = expected.lines().count() as u64;
    assert!(machines > u64::from(SIZE) / 4, "{machines}");

    // Nothing changes, and all are asked whether they are there.
    let rounds = |count: u64| {
        let end = answerer.asked() + count * machines;
        wait_until("the builders to be asked", LONG, || answerer.asked() >= end);
    };
    rounds(2);
    assert_eq!(meter.read(&format!("{machines} builders at rest")), 0);

    // What the API server says after another restart is not new; a pod that is no builder yet is known.
    let (lost, waiting) = (cache.metric(LOST), cache.metric(NOT_READY));
    restart_with_a_later_version(&cluster);
    wait_until("the watch to be lost", LONG, || cache.metric(LOST) > lost);
    crowd.create(10_000..10_001);
    wait_until("the list", LONG, || cache.metric(NOT_READY) == waiting + 1);
    assert_eq!(meter.read("a restart of the API server"), 0);
    assert!(lists(&cluster) > 1, "all pods, in pages");
    assert_eq!(cache.machines().as_deref(), Some(&*expected));

    // Some fall silent, are left out as long as they are, and come back.
    let is_mute = |host: u32| host.is_multiple_of(10);
    answerer.set_mute(is_mute);
    cache.says("without the silent", &crowd.machines(KEY, ENCODED, is_mute));
    meter.read("some fall silent");
    rounds(3);
    assert_eq!(meter.read("and stay so"), 0);
    answerer.set_mute(|_| false);
    cache.says("all again", &expected);
    meter.read("and come back");
}

/// A node role that lets the cache in, with a store of its own and no kubelet.
fn builder(name: &str, hostname: Option<&str>, features: &str) -> Value {
    let env = |name: &str, value: &str| json!({ "name": name, "value": value });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "app": "nix-csi-node" },
            "annotations": { "nix.csi.store/builder-features": features },
        },
        "spec": {
            "hostname": hostname,
            "subdomain": "nix-builders",
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main",
                "image": "localhost/nix-csi:e2e",
                "imagePullPolicy": "Never",
                "args": ["node"],
                "securityContext": { "privileged": true },
                "env": [
                    env("NIX_CSI_SSH_LISTEN", "0.0.0.0:22"),
                    env("NIX_CSI_SSH_HOST_KEY", "/keys/host"),
                    env("NIX_CSI_AUTHORIZED_KEYS", "/keys"),
                    env(
                        "NIX_CSI_NIX_OPTIONS",
                        "substituters=\nsandbox-paths=/bin/busybox\nsystem-features=named",
                    ),
                ],
                "ports": [{ "name": "ssh", "containerPort": 22 }],
                "volumeMounts": [
                    { "name": "keys", "mountPath": "/keys" },
                    { "name": "store", "mountPath": "/nix" },
                ],
            }],
            "volumes": [
                { "name": "keys", "secret": { "secretName": "builder", "defaultMode": 0o400 } },
                { "name": "store", "emptyDir": {} },
            ],
        },
    })
}

/// What the cache builds with, if it is not the cache itself.
const BUILD: &str = r#"NIX_REMOTE=unix:///run/nix-csi/nix-daemon/socket HOME=/tmp nix-build \
    --max-jobs 0 --no-out-link -E 'derivation {
      name = "named"; system = builtins.currentSystem; requiredSystemFeatures = [ "named" ];
      builder = "/bin/busybox"; args = [ "sh" "-c" "echo built >$out" ];
    }'"#;

#[test]
fn a_builder_with_a_hostname_is_reached_by_its_name_and_one_without_by_its_address() {
    let cluster = Cluster::get();
    let space = cluster.space("names");
    let keys = tempfile::tempdir().unwrap();
    let made = Command::new("deploy/make-keys.sh").arg(keys.path()).status().unwrap();
    assert!(made.success());
    let key = |name: &str| fs::read_to_string(keys.path().join(name)).unwrap();
    let host_key = key("builder-host.pub");
    space.apply(vec![
        secret("keys", &json!({ "builder": key("cache"), "builder-host.pub": host_key })),
        secret("builder", &json!({ "host": key("builder-host"), "cache.pub": key("cache.pub") })),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "nix-builders" },
            "spec": {
                "clusterIP": "None", "selector": { "app": "nix-csi-node" },
                "ports": [{ "name": "ssh", "port": 22, "targetPort": "ssh" }],
            },
        }),
        builder("named", Some("known"), "named"),
        builder("plain", None, ""),
    ]);
    let cache = OwnCache::start(
        &space,
        &[
            ("NIX_CSI_AUTHORIZED_KEYS", "/keys"),
            ("NIX_CSI_BUILDER_HOST_KEY", "/keys/builder-host.pub"),
            ("NIX_CSI_BUILDER_KEY", "/keys/builder"),
            ("NIX_CSI_BUILDER_ADDRESS", "hostname"),
        ],
    );
    let [named, plain] = ["named", "plain"].map(|pod| {
        space.running(pod);
        space.kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])
    });
    let name = format!("known.nix-builders.{}.svc.cluster.local", space.name);
    let encoded = STANDARD.encode(host_key.split(' ').take(2).collect::<Vec<_>>().join(" "));
    let line = |host: &str, systems: &str, jobs: usize, features: &str| {
        let key = "/run/nix-csi/mounted/private-key";
        format!("ssh-ng://nix@{host} {systems} {key} {jobs} 1 {features} - {encoded}\n")
    };
    // As it says in its greeting; what its pod says wins.
    let says = |host: &str, features: &str| {
        line(host, SYSTEMS, std::thread::available_parallelism().unwrap().get(), features)
    };
    let expected = says(&plain, "-") + &says(&name, "named");
    cache.says("both builders", &expected);

    // The name is the pod's own, and a builder answers there and builds.
    let address = wait("the name in the DNS", SOON, || cache.exec(&["getent", "ahostsv4", &name]));
    assert!(address.lines().all(|line| line.split(' ').next() == Some(&named)), "{address}");
    let banner = format!("exec 3<>/dev/tcp/{name}/22; head -c 4 <&3");
    let banner = wait("its sshd", SOON, || cache.exec(&["bash", "-c", &banner]));
    assert_eq!(banner, "SSH-");
    let path = wait("a build", SOON, || cache.exec(&["sh", "-c", BUILD]));
    space.kubectl(&["exec", "named", "--", "nix-store", "--check-validity", path.trim()]);
    assert_eq!(cache.exec(&["cat", path.trim()]).as_deref(), Some("built\n"));

    // A name that no Service gives is tried, and left out.
    let mut lost = builder("lost", Some("lost"), "");
    lost["spec"]["subdomain"] = json!("no-service");
    lost["spec"]["schedulerName"] = json!("nobody");
    let ready = json!({ "status": {
        "phase": "Running", "podIP": plain, "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    space.apply(vec![lost]);
    let patch = ["patch", "pod", "lost", "--subresource=status", "-p"];
    space.kubectl(&[&patch[..], &[&ready.to_string()]].concat());
    let unknown = format!("lost.no-service.{}.svc.cluster.local", space.name);
    cache.says("what the pod says", &(expected.clone() + &line(&unknown, "x86_64-linux", 1, "-")));
    cache.says("without a name that nobody knows", &expected);
    let log = space.kubectl(&["logs", "cache"]);
    assert_eq!(log.matches("this pod has no hostname and subdomain").count(), 1, "{log}");
}
