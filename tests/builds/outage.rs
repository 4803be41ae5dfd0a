//! Defect 14: a cache that is down, broken or does not answer costs a short probe, and fails no
//! mount that can do without it.

use std::time::Duration;

use nix_csi::grpc::client::Code;
use tokio::time::timeout;

use crate::lab;
use crate::lab::{Cache, Gate, Kubelet, Lab, Mode, Node, Pace, Volume, code, until};
use crate::world::{assert_ends, filled, nix_option, node_with, with_caches};

/// The probe of `world::paced` takes 2 s at most, the rest far less; a slow machine has time. Nix's own
/// attempts, of `stubborn`, take 16 s and more.
const PATIENCE: Duration = Duration::from_secs(10);
const NOBODY: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody";

/// The same with these substituters; its Nix waits 0.25 s after a failed attempt, then twice as long each time.
fn stubborn(caches: &[&Cache]) -> Vec<String> {
    let mut settings = with_caches(Pace::of_this_run(), caches);
    settings.extend(nix_option("download-attempts=7"));
    settings
}

async fn published_in_time(node: &Node, volume: &Volume) {
    let kubelet = Kubelet::new(node, volume, Pace::of_this_run());
    let last = kubelet.until_published().await;
    kubelet.assert_only_retryable();
    assert!(last.end < PATIENCE, "{:#?}", kubelet.calls());
}

/// Something that only a build can make.
async fn is_built(lab: &Lab, node: &Node, name: &'static str) {
    let gate = Gate::new(lab, name);
    gate.open();
    let volume = lab.volume(name, &[("nixExpr", &gate.expression())]);
    published_in_time(node, &volume).await;
    assert_eq!(gate.runs(), 1);
    assert_ends(lab, node, &volume).await;
}

/// Nix on this node has used the cache and knows of it on disk; the node that did is gone.
async fn used(lab: &Lab, cache: &Cache) {
    let node = node_with(lab, &with_caches(Pace::of_this_run(), &[cache])).await;
    ask(lab, &node, cache).await;
    node.kill();
}

async fn ask(lab: &Lab, node: &Node, cache: &Cache) {
    let nothing = lab.volume("nothing", &[("storePath", NOBODY)]);
    until("the cache's answer", async || code(node.publish(&nothing).await) == Code::NotFound)
        .await;
    assert!(!cache.narinfos().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_built_needs_no_cache() {
    let lab = lab!();
    let mut cache = lab.cache().await;
    cache.kill().await;
    let node = node_with(&lab, &stubborn(&[&cache])).await;
    is_built(&lab, &node, "one").await;
    is_built(&lab, &node, "two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_built_needs_no_cache_that_was_used_before() {
    let lab = lab!();
    let mut cache = lab.cache().await;
    used(&lab, &cache).await;
    cache.kill().await;
    let node = node_with(&lab, &stubborn(&[&cache])).await;
    is_built(&lab, &node, "one").await;
    is_built(&lab, &node, "two").await;
}

/// It answered a moment ago. Nix's own attempts and one call may go by, but once only.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_built_needs_no_cache_that_has_just_died() {
    let lab = lab!();
    let mut cache = lab.cache().await;
    let pace = Pace::of_this_run();
    let node = node_with(&lab, &with_caches(pace, &[&cache])).await;
    let gate = Gate::new(&lab, "first");
    gate.open();
    ask(&lab, &node, &cache).await;
    cache.kill().await;
    let volume = lab.volume("first", &[("nixExpr", &gate.expression())]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    kubelet.until_published().await;
    kubelet.assert_only_retryable();
    assert_eq!(gate.runs(), 1);
    assert_ends(&lab, &node, &volume).await;
    is_built(&lab, &node, "second").await;
}

/// A cache that is there and of no use costs a probe, or Nix's own attempts, and no more.
async fn is_built_beside(mode: Mode) {
    let lab = lab!();
    let cache = lab.cache().await;
    cache.set(mode);
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

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_built_needs_no_cache_that_answers_500() {
    is_built_beside(Mode::Broken).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_built_does_not_wait_for_a_cache_that_hangs() {
    is_built_beside(Mode::Hang).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cache_has_it() {
    let lab = lab!();
    let (cache, root) = filled(&lab, &[]).await;
    for was_used in [false, true] {
        let mut down = lab.cache().await;
        if was_used {
            used(&lab, &down).await;
        }
        down.kill().await;
        let node = node_with(&lab, &stubborn(&[&down, &cache])).await;
        let volume = lab.volume("pod", &[("storePath", &root)]);
        published_in_time(&node, &volume).await;
        assert_ends(&lab, &node, &volume).await;
        node.kill();
        lab.ok("nix-store", &["--gc"]);
    }
}

/// What is in the store needs nobody, be there a view of it or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_needs_no_cache() {
    let lab = lab!();
    let root = lab.closure(&[]);
    for mode in [Mode::Hang, Mode::Broken] {
        let cache = lab.cache().await;
        cache.set(mode);
        let node = node_with(&lab, &with_caches(Pace::of_this_run(), &[&cache])).await;
        for volume in ["one", "two"].map(|name| lab.volume(name, &[("storePath", &root)])) {
            timeout(Duration::from_secs(1), node.publish(&volume)).await.expect("at once").unwrap();
            node.unpublish(&volume).await.unwrap();
        }
        assert_eq!(cache.requests(), 0);
    }
}

/// Nobody knows whether it has the path: that is for the kubelet to ask again, until it is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_only_the_lost_cache_has_is_waited_for() {
    let lab = lab!();
    let (mut cache, root) = filled(&lab, &[]).await;
    let pace = Pace::of_this_run();
    for is_closed in [true, false] {
        let node = node_with(&lab, &with_caches(pace, &[&cache])).await;
        let volume = lab.volume("pod", &[("storePath", &root)]);
        let kubelet = Kubelet::new(&node, &volume, pace);
        if is_closed {
            cache.kill().await;
        } else {
            cache.set(Mode::Broken);
        }
        let back = async {
            let failed = || kubelet.codes().contains(&Code::Unavailable);
            until("a call to fail", async || failed()).await;
            if is_closed {
                cache.start().await;
            } else {
                cache.set(Mode::Serve);
            }
        };
        tokio::join!(kubelet.until_published(), back);
        kubelet.assert_only_retryable();
        assert_ends(&lab, &node, &volume).await;
        node.kill();
        lab.ok("nix-store", &["--gc"]);
    }
}

/// A pipeline that is slower than the pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_pushed_later_is_found() {
    let lab = lab!();
    let (cache, root) = filled(&lab, &[]).await;
    cache.set(Mode::Empty);
    let pace = Pace::of_this_run();
    let node = node_with(&lab, &with_caches(pace, &[&cache])).await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    let pushed = async {
        until("two calls to fail", async || kubelet.calls().len() > 1).await;
        cache.set(Mode::Serve);
    };
    tokio::join!(kubelet.until_published(), pushed);
    assert_eq!(kubelet.codes()[0], Code::NotFound);
    assert_ends(&lab, &node, &volume).await;
}
