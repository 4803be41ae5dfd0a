//! What metrics tell of what was fetched and built, with a real Nix.

use crate::lab;
use crate::lab::{Kubelet, Node, Pace, until};
use crate::world::{Chain, PATHS, filled, node_with, with_caches};

/// What was fetched and built is counted soon, and no call waits for it.
async fn has(node: &Node, samples: &[&str]) {
    for sample in samples {
        until(sample, async || node.metrics().lines().any(|line| line == *sample)).await;
    }
}

/// The value of one sample.
fn value(node: &Node, name: &str) -> f64 {
    node.metric(name).unwrap_or_else(|| panic!("{name}\n{}", node.metrics()))
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_was_fetched_and_what_was_built() {
    let lab = lab!();
    let (cache, root) = filled(&lab, PATHS).await;
    let pace = Pace::of_this_run();
    let node = node_with(&lab, &with_caches(pace, &[&cache])).await;
    let fetched = lab.volume("fetched", &[("storePath", &root)]);
    Kubelet::new(&node, &fetched, pace).until_published().await;
    has(
        &node,
        &[
            "nixcsi_paths_total{origin=\"substituter\"} 20",
            "nixcsi_paths_total{origin=\"built\"} 0",
            "nixcsi_publish_seconds_count{outcome=\"ok\",source=\"storePath\",warm=\"no\"} 1",
            "nixcsi_publish_phase_seconds_count{phase=\"fetch\",source=\"storePath\"} 1",
            "nixcsi_realise_seconds_count{outcome=\"ok\",source=\"storePath\",where=\"none\"} 1",
        ],
    )
    .await;
    assert!(value(&node, "nixcsi_bytes_total{origin=\"substituter\"}") > 3_000_000.0);

    let chain = Chain::new(&lab);
    chain.second.open();
    Kubelet::new(&node, &chain.volume, pace).until_published().await;
    has(
        &node,
        &[
            "nixcsi_paths_total{origin=\"substituter\"} 20",
            "nixcsi_paths_total{origin=\"built\"} 2",
            "nixcsi_publish_phase_seconds_count{phase=\"build\",source=\"nixExpr\"} 1",
            "nixcsi_publish_phase_seconds_count{phase=\"evaluate\",source=\"nixExpr\"} 1",
            "nixcsi_realise_seconds_count{outcome=\"ok\",source=\"nixExpr\",where=\"node\"} 1",
        ],
    )
    .await;
    assert!(value(&node, "nixcsi_bytes_total{origin=\"built\"}") > 0.0);
    let whole =
        value(&node, "nixcsi_publish_seconds_sum{outcome=\"ok\",source=\"nixExpr\",warm=\"no\"}");
    let phases = ["resolve", "evaluate", "build", "view", "mount"].map(|phase| {
        let sum = "nixcsi_publish_phase_seconds_sum";
        value(&node, &format!("{sum}{{phase=\"{phase}\",source=\"nixExpr\"}}"))
    });
    assert!(phases.iter().sum::<f64>() <= whole, "{phases:?} {whole}");

    let calls = "nixcsi_grpc_seconds_count{code=\"OK\",method=\"NodePublishVolume\"}";
    assert!(value(&node, calls) >= 2.0);
    assert!(value(&node, "nixcsi_grpc_in_flight{method=\"NodePublishVolume\"}").abs() < 0.5);
    let version = env!("CARGO_PKG_VERSION");
    assert!(node.metrics().contains(&format!("version=\"{version}\"}} 1\n")));
}
