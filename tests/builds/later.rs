//! What should hold and does not yet.

use std::time::Duration;

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Gate, Kubelet, Mode, NO_IDLE, Pace, code};
use crate::world::{Chain, assert_ends, node_with, with_caches, worker};

/// The daemon's worker is killed and the pod is deleted: nobody's retry ends the builder.
#[tokio::test(flavor = "multi_thread")]
async fn a_builder_without_its_worker_does_not_stay() {
    let lab = lab!();
    let chain = Chain::new(&lab);
    let node = lab.node(NO_IDLE).await;
    let killed = async {
        chain.builder().await;
        lab.kill(&worker(&lab));
    };
    let (published, ()) = tokio::join!(node.publish(&chain.volume), killed);
    assert_eq!(code(published), Code::Unavailable);
    assert_ends(&lab, &node, &chain.volume).await;
}

/// Defect 14: a cache that accepts connections and says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_built_does_not_wait_for_a_cache_that_hangs() {
    let lab = lab!();
    let cache = lab.cache().await;
    cache.set(Mode::Hang);
    let pace = Pace::of_this_run();
    let node = node_with(&lab, &with_caches(pace, &[&cache])).await;
    let gate = Gate::new(&lab, "one");
    gate.open();
    let volume = lab.volume("one", &[("nixExpr", &gate.expression())]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    let last = kubelet.until_published().await;
    kubelet.assert_only_retryable();
    assert!(last.end < Duration::from_secs(10), "{:#?}", kubelet.calls());
    assert_ends(&lab, &node, &volume).await;
}
