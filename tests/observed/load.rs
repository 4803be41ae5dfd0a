//! What pods do to a node, and what befalls it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, interval, timeout};

use crate::lab::{CacheRole, Lab, Node, Volume, until};
use crate::prometheus::Prometheus;
use crate::world::{Keys, Machines, STRICT, build, of_pod};

/// Between two pods of one kind.
const EVERY: Duration = Duration::from_millis(500);
/// How long a kubelet waits, here.
const DEADLINE: Duration = Duration::from_secs(20);
/// Volumes of one kind at once.
const AT_ONCE: usize = 6;

/// What the first part brings, on both nodes.
pub(crate) const FIRST: &[&str] = &[
    "count(sum by (instance) (nixcsi_publish_seconds_count{warm=\"yes\",outcome=\"ok\"}) > 3) == 2",
    "count(nixcsi_publish_phase_seconds_count{phase=\"fetch\"} > 0) == 2",
    "count(nixcsi_bytes_total{origin=\"cache\"} > 0) == 2",
    "nixcsi_uploads_total{outcome=\"ok\"} > 1",
    "nixcsi_upload_queue{state=\"dead\"} > 0",
    "count(nixcsi_gc_deleted_paths_total > 0) == 2",
];
/// What the last part brings.
pub(crate) const LAST: &[&str] = &[
    "nixcsi_realise_seconds_count{where=\"cache\"} > 1",
    "ALERTS{alertname=\"NixCsiUploadsGivenUp\",alertstate=\"firing\"}",
    "ALERTS{alertname=\"NixCsiConfigRefused\",alertstate=\"firing\"}",
];

/// How long each part of the load goes on at least.
pub(crate) fn part() -> Duration {
    let is_full = std::env::var_os("NIX_CSI_FULL").is_some_and(|value| value == "1");
    Duration::from_secs(if is_full { 120 } else { 10 })
}

pub(crate) struct Pods<'l> {
    pub(crate) lab: &'l Lab,
    pub(crate) name: &'static str,
    /// Closures of the cache.
    pub(crate) cached: &'l [String],
    /// A flake that the node may read, if there is one.
    pub(crate) flake: Option<&'l str>,
}

impl Pods<'_> {
    /// Pods come and go until it is over: cold ones, warm ones, and those that fail.
    pub(crate) async fn come_and_go(&self, node: &Node, is_over: &AtomicBool) {
        let mut again = interval(EVERY);
        let mut open = VecDeque::new();
        for n in 0.. {
            again.tick().await;
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let volume = self.volume(n);
            if let Ok(Ok(())) = timeout(DEADLINE, node.publish(&volume)).await {
                let _ = node.stats(&volume).await;
                open.push_back(volume);
            } else {
                let _ = node.unpublish(&volume).await;
            }
            if open.len() > AT_ONCE {
                node.unpublish(&open.pop_front().unwrap()).await.unwrap();
            }
            node.status().await;
        }
    }

    fn volume(&self, n: usize) -> Volume {
        let name = format!("{}-{n}", self.name);
        let (round, turn) = (n / 12, n % 12);
        let cold = build(&format!("{}-cold-{round}", self.name), 0, ":");
        let path = &self.cached[round % self.cached.len()];
        let (space, source) = match turn {
            0 => ("shop", ("nixExpr", "throw \"no such option\"".to_owned())),
            1 => ("shop", ("nixExpr", build(&format!("{name}-broken"), 0, "exit 1"))),
            2 => ("shop", ("storePath", format!("/nix/store/{n:032}-missing"))),
            3 => (STRICT, ("nixExpr", cold)),
            4 | 5 => ("shop", ("storePath", path.clone())),
            6 => match self.flake {
                Some(flake) => ("shop", ("flakeRef", format!("path:{flake}#x"))),
                None => ("shop", ("nixExpr", cold)),
            },
            _ => ("shop", ("nixExpr", cold)),
        };
        let volume = of_pod(self.lab, space, &name, (source.0, &source.1));
        if turn == 8 { volume.writable() } else { volume }
    }

    /// Builds that take a while, more than there are slots.
    pub(crate) async fn build(&self, node: &Node, is_over: &AtomicBool) {
        for n in 0.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let one = async |k: u32| {
                let name = format!("{}-slow-{n}-{k}", self.name);
                let expression = build(&name, 2 + k, ":");
                let volume = of_pod(self.lab, "shop", &name, ("nixExpr", &expression));
                let _ = timeout(DEADLINE, node.publish(&volume)).await;
                node.unpublish(&volume).await.unwrap();
            };
            futures::future::join_all((0..3).map(one)).await;
        }
    }
}

/// Waits until Prometheus has seen all that.
pub(crate) async fn seen(prometheus: &Prometheus, all: &[&str]) {
    for expression in all {
        prometheus.knows(expression).await;
    }
}

/// Sets `is_over` when the part's time is up and this is done.
pub(crate) async fn over(is_over: &AtomicBool, meanwhile: impl Future<Output = ()>) {
    let end = Instant::now() + part();
    meanwhile.await;
    until("the end of the time", async || Instant::now() >= end).await;
    is_over.store(true, Ordering::Relaxed);
}

/// The cache is stopped until Prometheus has seen that a node misses it; then it serves again, and what waited is
/// sent.
pub(crate) async fn outage<'m>(
    machines: &'m Machines,
    (role, keys): (&mut CacheRole<'m>, &Keys),
    node: &Node,
    prometheus: &Prometheus,
) {
    machines.configure("http-connections = 6\n");
    assert_eq!(role.stop(), Some(0));
    let end = Instant::now() + part() / 3;
    // Something to send.
    let volume = of_pod(&machines.a, "shop", "outage", ("nixExpr", &build("outage", 0, ":")));
    timeout(DEADLINE, node.publish(&volume)).await.unwrap().unwrap();
    node.unpublish(&volume).await.unwrap();
    prometheus.knows("nixcsi_cache_last_upload{end=\"unreachable\"} == 1").await;
    until("the end of the outage", async || Instant::now() >= end).await;
    machines.configure("http-connections = 7\n");
    *role = machines.cache_role(keys);
    let none_waits = "nixcsi_upload_queue{state=\"waiting\"} 0\n";
    until("the uploads", async || node.metrics().contains(none_waits)).await;
}
