//! The cache's registry with as many builders as a large cluster has nodes: what a first list, one change, a change that
//! changes nothing, and a round of answers take of a processor; and how long the machines file is, which Nix reads for
//! each build.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix_csi::actors::core::{Backoff, End};
use nix_csi::actors::registry::{BuilderRegistry, RegistryConfig, RegistryHandle};
use nix_csi::k8s::fake_builders::{FakeBuilders, pod};
use nix_csi::model::Announcement;
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::many::cpu;
use crate::report::{Report, Row};

pub const CLUSTERS: [(u32, &str); 3] =
    [(50, "50 nodes"), (500, "500 nodes"), (5000, "5,000 nodes")];
/// As in a cache, but in a bench nobody waits for quiet.
const DEBOUNCE: Duration = Duration::from_millis(1);

pub fn measure(rounds: usize, report: &mut Report) {
    for _ in 0..rounds {
        for (nodes, name) in CLUSTERS {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let dir = tempfile::tempdir().unwrap();
            let local = LocalSet::new();
            local.block_on(&runtime.unwrap(), registry(nodes, name, dir.path(), report));
        }
    }
}

async fn registry(nodes: u32, name: &'static str, dir: &Path, report: &mut Report) {
    let machines = dir.join("machines");
    let cluster = FakeBuilders::default();
    (0..nodes).for_each(|node| cluster.apply(pod(node)));

    let began = cpu("self");
    let config = RegistryConfig { debounce: DEBOUNCE, ..RegistryConfig::new(machines.clone()) };
    let registry = RegistryHandle::start(
        BuilderRegistry::new(config, Arc::new(cluster.clone())),
        backoff(),
        |end| assert_eq!(end, End::Done),
    );
    written(&machines, nodes).await;
    report.add_figure(Row::ours("registry-list", name), cpu("self") - began);
    let length = fs::metadata(&machines).unwrap().len();
    #[expect(clippy::cast_precision_loss, reason = "some megabytes at most")]
    report.add_figure(Row::ours("machines-file", name).in_bytes(), length as f64);

    let began = cpu("self");
    cluster.apply(pod(nodes));
    written(&machines, nodes + 1).await;
    report.add_figure(Row::ours("registry-change", name), cpu("self") - began);

    // Nothing is waited for in these.
    let began = Instant::now();
    cluster.apply(pod(nodes));
    registry.list().await;
    report.add(Row::ours("registry-no-change", name), began.elapsed());

    let answers: HashMap<_, _> = (0..=nodes)
        .map(|node| (pod(node).ip.unwrap().into(), Some(Announcement::default())))
        .collect();
    let began = Instant::now();
    registry.asked(answers);
    assert_eq!(registry.list().await.len(), nodes as usize + 1);
    report.add(Row::ours("registry-answers", name), began.elapsed());
}

/// Of an actor that is never to need it.
pub fn backoff() -> Backoff {
    let second = Duration::from_secs(1);
    Backoff::new(second, 2 * second, 60 * second, 5)
}

/// Until the file has so many lines. Looks seldom: a look costs, too.
async fn written(machines: &Path, lines: u32) {
    let mut again = tokio::time::interval(Duration::from_millis(20));
    loop {
        again.tick().await;
        if fs::read_to_string(machines).unwrap_or_default().lines().count() == lines as usize {
            return;
        }
    }
}
