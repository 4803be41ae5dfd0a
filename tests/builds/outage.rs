//! Caches that are down, empty or broken, and mounts that can do without them.

use std::time::Duration;

use nix_csi::grpc::client::Code;
use tokio::time::{Instant, timeout};

use crate::lab;
use crate::lab::{Gate, Kubelet, Mode, Pace, code};
use crate::world::{assert_ends, filled, node_with, with_caches};

/// Nothing listens on the cache's port.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_built_is_built_without_a_cache() {
    let lab = lab!();
    let mut cache = lab.cache().await;
    cache.kill().await;
    let gate = Gate::new(&lab, "here");
    gate.open();
    let node = node_with(&lab, &with_caches(&[&cache], &[])).await;
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    let t = Instant::now();
    node.publish(&volume).await.unwrap();
    eprintln!("built without a cache: {:?}", t.elapsed());
    assert_eq!(gate.runs(), 1);
    assert_ends(&lab, &node, &volume).await;
}

/// The same of a cache that the node has used before.
#[tokio::test(flavor = "multi_thread")]
async fn known_cache_down() {
    let lab = lab!();
    let mut cache = lab.cache().await;
    let gates = ["one", "two"].map(|name| Gate::new(&lab, name));
    gates.iter().for_each(Gate::open);
    let node = node_with(&lab, &with_caches(&[&cache], &[])).await;
    let one = lab.volume("one", &[("nixExpr", &gates[0].expression())]);
    node.publish(&one).await.unwrap();
    assert!(cache.requests() > 0);
    cache.kill().await;
    let two = lab.volume("two", &[("nixExpr", &gates[1].expression())]);
    let t = Instant::now();
    let r = node.publish(&two).await;
    eprintln!("known cache down: {:?} {r:?}", t.elapsed());
    r.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_substituter_has_it() {
    let lab = lab!();
    let (cache, root) = filled(&lab, &[]).await;
    let mut down = lab.cache().await;
    down.kill().await;
    let node = node_with(&lab, &with_caches(&[&down, &cache], &[])).await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let t = Instant::now();
    let r = node.publish(&volume).await;
    eprintln!("other has it: {:?} {r:?}", t.elapsed());
    r.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_substituter_has_it_known() {
    let lab = lab!();
    let (cache, root) = filled(&lab, &[]).await;
    let mut down = lab.cache().await;
    let node = node_with(&lab, &with_caches(&[&down, &cache], &[])).await;
    let other =
        lab.volume("pod", &[("storePath", "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody")]);
    assert_eq!(code(node.publish(&other).await), Code::NotFound);
    down.kill().await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let t = Instant::now();
    let r = node.publish(&volume).await;
    eprintln!("other has it, known: {:?} {r:?}", t.elapsed());
    r.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn uploaded_later() {
    let lab = lab!();
    let (cache, root) = filled(&lab, &[]).await;
    cache.set(Mode::Empty);
    let node = node_with(&lab, &with_caches(&[&cache], &[])).await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let kubelet = Kubelet::new(&node, &volume, Pace::of_this_run());
    eprintln!("{:?}", kubelet.cancel_after(Duration::from_secs(20)).await);
    cache.set(Mode::Serve);
    let r = timeout(Duration::from_secs(10), kubelet.until_published()).await;
    eprintln!("{r:?} {:?}", kubelet.calls());
    r.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn broken() {
    let lab = lab!();
    let (cache, root) = filled(&lab, &[]).await;
    cache.set(Mode::Broken);
    let gate = Gate::new(&lab, "here");
    gate.open();
    let node = node_with(&lab, &with_caches(&[&cache], &[])).await;
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    let t = Instant::now();
    let r = node.publish(&volume).await;
    eprintln!("broken: {:?} {r:?}", t.elapsed());
    let volume = lab.volume("fetched", &[("storePath", &root)]);
    let t = Instant::now();
    let r2 = node.publish(&volume).await;
    eprintln!("broken, storePath: {:?} {r2:?}", t.elapsed());
    r.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging() {
    let lab = lab!();
    let (cache, root) = filled(&lab, &[]).await;
    cache.set(Mode::Hang);
    let gate = Gate::new(&lab, "here");
    gate.open();
    let node = node_with(&lab, &with_caches(&[&cache], &[])).await;
    let volume = lab.volume("pod", &[("nixExpr", &gate.expression())]);
    let t = Instant::now();
    let r = timeout(Duration::from_secs(25), node.publish(&volume)).await;
    eprintln!("hang: {:?} {r:?}", t.elapsed());
    let volume = lab.volume("fetched", &[("storePath", &root)]);
    let t = Instant::now();
    let r2 = timeout(Duration::from_secs(10), node.publish(&volume)).await;
    eprintln!("hang, storePath: {:?} {r2:?}", t.elapsed());
    r.unwrap().unwrap();
}
