//! A cache in a test's own namespace, whose pods are its builders.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::{LONG, POLL, SOON, Space, wait, wait_until};

/// Where it puts the key that it makes itself.
pub(crate) const KEY: &str = "/nix/var/nix-csi/ssh/builder_ed25519";
pub(crate) const HOST_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE7V/FEoDBlpAh7737V2Qq63mp66O9YXLdADB3EVD2hg";
/// The same as the machines file has it.
pub(crate) const ENCODED: &str = "c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUU3Vi9GRW9EQmxwQWg3NzM3VjJRcTYzbXA2Nk85WVhMZEFEQjNFVkQyaGc=";
const WRITES: &str = "nixcsi_registry_writes_total";

pub(crate) struct OwnCache<'a> {
    space: &'a Space<'a>,
}

/// What its process has used so far, without its children.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) cpu_seconds: f64,
    /// The most that it ever had in memory.
    pub(crate) peak_kilobytes: u64,
}

/// The rights of the chart's cache.
fn account() -> [Value; 3] {
    let api = "rbac.authorization.k8s.io";
    let meta = json!({ "name": "cache" });
    [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta }),
        json!({ "apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": meta, "rules": [
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] },
        ] }),
        json!({ "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": meta,
            "roleRef": { "apiGroup": api, "kind": "Role", "name": "cache" },
            "subjects": [{ "kind": "ServiceAccount", "name": "cache" }] }),
    ]
}

impl<'a> OwnCache<'a> {
    pub(crate) fn start(space: &'a Space<'a>, env: &[(&str, &str)]) -> Self {
        let mut env: Vec<_> =
            env.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        env.extend([
            json!({ "name": "NIX_CSI_BUILDER_NAMESPACE", "value": space.name }),
            json!({ "name": "NIX_CSI_HTTP", "value": "0.0.0.0:9809" }),
            json!({ "name": "NIX_CSI_NIX_OPTIONS", "value": "substituters=" }),
        ]);
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": "cache" },
            "spec": {
                "serviceAccountName": "cache",
                "terminationGracePeriodSeconds": 5,
                "containers": [{
                    "name": "main",
                    "image": "localhost/nix-csi:e2e",
                    "imagePullPolicy": "Never",
                    "args": ["cache"],
                    "env": env,
                    "readinessProbe": { "httpGet": { "path": "/readyz", "port": 9809 } },
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "capabilities": { "add": ["SYS_CHROOT"] },
                    },
                    "volumeMounts": [
                        { "name": "store", "mountPath": "/nix" },
                        { "name": "keys", "mountPath": "/keys" },
                    ],
                }],
                "volumes": [
                    { "name": "store", "emptyDir": {} },
                    { "name": "keys", "secret": { "secretName": "keys", "defaultMode": 0o400 } },
                ],
            },
        });
        space.apply(account().into_iter().chain([pod]).collect());
        let this = Self { space };
        wait_until("the cache", SOON, || {
            let ready = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
            space.ask(&["get", "pod", "cache", "-o", ready]).as_deref() == Some("True")
        });
        this
    }

    /// What a program in its container says, if it succeeds.
    pub(crate) fn exec(&self, args: &[&str]) -> Option<String> {
        self.space.ask(&[&["exec", "cache", "--"], args].concat())
    }

    pub(crate) fn machines(&self) -> Option<String> {
        self.exec(&["cat", "/run/nix-csi/machines"])
    }

    /// Waits until the machines file is this one.
    pub(crate) fn says(&self, what: &str, expected: &str) {
        let end = Instant::now() + LONG;
        loop {
            let found = self.machines().unwrap_or_default();
            if found == expected {
                return;
            }
            assert!(Instant::now() < end, "{what}: {}", difference(&found, expected));
            std::thread::park_timeout(5 * POLL);
        }
    }

    /// A counter or gauge, with its labels.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let path = format!("/api/v1/namespaces/{}/pods/cache:9809/proxy/metrics", self.space.name);
        wait("the metrics", LONG, || {
            let text = self.space.cluster.ask(&["get", "--raw", &path])?;
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            Some(line.unwrap_or_else(|| panic!("no {name}")).parse().unwrap())
        })
    }

    /// Builders that it knows, in whatever state.
    pub(crate) fn builders(&self) -> u64 {
        let states = ["ready", "not-ready", "benched", "invalid", "excluded"];
        let count = |state| self.metric(&format!("nixcsi_builders{{state=\"{state}\"}}"));
        states.map(count).iter().sum()
    }

    /// From proc(5) of the process that works, which is the child of the container's first.
    pub(crate) fn used(&self) -> Used {
        let script =
            "read pid rest </proc/1/task/1/children; cat /proc/$pid/stat /proc/$pid/status";
        let text = wait("its figures", LONG, || self.exec(&["sh", "-c", script]));
        let (_, stat) = text.lines().next().unwrap().rsplit_once(") ").unwrap();
        let ticks: Vec<u64> =
            stat.split(' ').skip(11).take(2).map(|field| field.parse().unwrap()).collect();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        Used {
            // Of which every Linux has a hundred a second.
            cpu_seconds: Duration::from_millis(10 * ticks.iter().sum::<u64>()).as_secs_f64(),
            peak_kilobytes: peak.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }
}

/// Says what something took.
pub(crate) struct Meter<'a> {
    cache: &'a OwnCache<'a>,
    used: Used,
    writes: u64,
    since: Instant,
}

impl<'a> Meter<'a> {
    pub(crate) fn start(cache: &'a OwnCache<'a>) -> Self {
        Self { cache, used: cache.used(), writes: cache.metric(WRITES), since: Instant::now() }
    }

    /// Writes of the machines file since the start, or the last call.
    pub(crate) fn read(&mut self, what: &str) -> u64 {
        let (before, now) = (self.used, self.cache.used());
        let writes = self.cache.metric(WRITES) - self.writes;
        println!(
            "{what}: {:.0} s, {writes} writes, {:.2} s of CPU, {} kB at most",
            self.since.elapsed().as_secs_f64(),
            now.cpu_seconds - before.cpu_seconds,
            now.peak_kilobytes
        );
        *self = Self {
            cache: self.cache,
            used: now,
            writes: self.writes + writes,
            since: Instant::now(),
        };
        writes
    }
}

fn difference(found: &str, expected: &str) -> String {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (found, expected) = (lines(found), lines(expected));
    let (more, less) = (&found - &expected, &expected - &found);
    let first = |lines: &BTreeSet<String>| lines.iter().next().cloned();
    format!(
        "{} lines too many, such as {:?}, {} too few, such as {:?}",
        more.len(),
        first(&more),
        less.len(),
        first(&less),
    )
}
