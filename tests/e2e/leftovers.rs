//! What is on the node: mounts, records, directories, roots, processes.

use tokio::time::Instant;

use crate::cluster::{Cluster, POLL, SOON};

const RECORDS: &str = "/run/nix-csi/volumes";
const STATE: &str = "/var/lib/nix-csi/nix/var/nix-csi";
const ROOTS: &str = "/var/lib/nix-csi/nix/var/nix/gcroots/nix-csi";

/// Everything that volumes have on the node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OnNode {
    /// Mounts at targets.
    pub(crate) mounts: Vec<String>,
    /// Mounts of views.
    pub(crate) views: Vec<String>,
    pub(crate) records: Vec<String>,
    /// The kubelet's directories of our volumes.
    pub(crate) directories: Vec<String>,
    pub(crate) roots: Vec<String>,
    pub(crate) writable: Vec<String>,
    /// Builders that run.
    pub(crate) builders: Vec<String>,
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl OnNode {
    pub(crate) fn now(cluster: &Cluster) -> Self {
        let table = cluster.on_node(&["cat", "/proc/self/mountinfo"]);
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below = |part: &'static str| {
            let found = points.clone().filter(move |point| point.contains(part));
            found.map(str::to_owned).collect()
        };
        let find = |dir: &str, kind: &str, pattern: &str| {
            let script = "[ ! -e \"$1\" ] || find \"$1\" -ignore_readdir_race -mindepth 1 -type \"$2\" -path \"$3\" -prune";
            lines(&cluster.on_node(&["sh", "-c", script, "sh", dir, kind, pattern]))
        };
        let builders = "ps ax -o args= | grep '^busybox sh -euc' || true";
        Self {
            mounts: below("/kubernetes.io~csi/"),
            views: below("/nix-csi/views/"),
            records: find(RECORDS, "f", "*.json"),
            directories: find("/var/lib/kubelet/pods", "d", "*/kubernetes.io~csi/*"),
            roots: find(ROOTS, "l", "*"),
            writable: find(&format!("{STATE}/volumes"), "d", "*"),
            builders: lines(&cluster.on_node(&["sh", "-c", builders])),
        }
    }
}

/// Waits until nothing of any volume is left: the driver of these tests keeps no idle views.
pub(crate) fn nothing_left(cluster: &Cluster) {
    let end = Instant::now() + SOON;
    loop {
        let found = OnNode::now(cluster);
        if found == OnNode::default() {
            return;
        }
        assert!(Instant::now() < end, "left on the node: {found:#?}");
        std::thread::park_timeout(POLL);
    }
}
