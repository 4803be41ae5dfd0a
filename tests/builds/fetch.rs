//! A closure that comes from a cache, and a cache that goes away meanwhile.

use std::collections::BTreeMap;
use std::fs;

use nix_csi::grpc::client::Code;
use nix_csi::model::System;

use crate::lab;
use crate::lab::{Cache, Gate, Kubelet, Lab, Pace, Served, until};
use crate::world::{
    PATHS, assert_ends, assert_no_processes, filled, nix_option, node_with, paced, with_caches,
};

/// Bytes a second: a second for each of the big ones.
const SLOW: usize = 1_000_000;

fn is_complete((_, served): &(&String, &Served)) -> bool {
    served.complete > 0
}

/// Some were fetched, and a big one is less than half there.
async fn in_the_middle(cache: &Cache) {
    until("a big path to be under way", async || {
        let nars = cache.nars();
        let begun = |(path, served): (&String, &Served)| {
            (1..cache.size(path) / 2).contains(&served.bytes) && served.complete == 0
        };
        nars.iter().filter(is_complete).count() >= 5 && nars.iter().any(begun)
    })
    .await;
}

/// What was complete before was asked for once; what was cut then, twice.
fn assert_only_the_cut_twice(cache: &Cache, before: &BTreeMap<String, Served>) {
    let after = cache.nars();
    let cut: Vec<_> = before.iter().filter(|nar| !is_complete(nar)).collect();
    assert!(!cut.is_empty() && after.len() == 20, "{before:#?} {after:#?}");
    for (path, served) in &after {
        let lost = cut.iter().find(|(cut, _)| *cut == path).map(|(_, served)| *served);
        let lost = lost.copied().unwrap_or_default();
        let expected = Served {
            requests: lost.requests + 1,
            bytes: lost.bytes + cache.size(path),
            complete: 1,
        };
        assert_eq!(*served, expected, "{path}");
        assert!(lost.requests < 2, "{path}: {lost:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_is_cut_goes_on_where_it_was() {
    let lab = lab!();
    let (mut cache, root) = filled(&lab, PATHS).await;
    let pace = Pace::of_this_run();
    let mut settings = with_caches(pace, &[&cache]);
    // Nix's own attempts, a second or more apart, are not what is tested.
    settings.extend(nix_option("download-attempts=1"));
    let node = node_with(&lab, &settings).await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    cache.throttle(Some(SLOW));
    let interrupted = async {
        in_the_middle(&cache).await;
        cache.kill().await;
        let before = cache.nars();
        let told = || kubelet.codes().contains(&Code::Unavailable);
        until("a call to fail of it", async || told()).await;
        cache.throttle(None);
        cache.start().await;
        before
    };
    let (_, before) = tokio::join!(kubelet.until_published(), interrupted);
    kubelet.assert_only_retryable();
    let calls = kubelet.calls();
    let cut = calls.iter().find(|call| call.code == Code::Unavailable).unwrap();
    assert!(cut.message.starts_with("fetch failed for now"), "{cut:?}");
    assert_only_the_cut_twice(&cache, &before);
    assert_ends(&lab, &node, &volume).await;
}

/// The driver dies with the fetch; its successor goes on.
#[tokio::test(flavor = "multi_thread")]
async fn whose_driver_is_killed_goes_on_where_it_was() {
    let lab = lab!();
    let (cache, root) = filled(&lab, PATHS).await;
    let pace = Pace::of_this_run();
    let settings = with_caches(pace, &[&cache]);
    let node = node_with(&lab, &settings).await;
    let volume = lab.volume("pod", &[("storePath", &root)]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    cache.throttle(Some(SLOW));
    let killed = async {
        in_the_middle(&cache).await;
        node.kill();
        assert_no_processes(&lab).await;
        let before = cache.nars();
        cache.throttle(None);
        (node_with(&lab, &settings).await, before)
    };
    let (_, (node, before)) = tokio::join!(kubelet.until_published(), killed);
    kubelet.assert_only_retryable();
    let after = cache.nars();
    for (path, served) in before.iter().filter(is_complete) {
        assert_eq!(after[path], *served, "{path}");
    }
    assert_eq!(after.values().map(|served| served.complete).sum::<usize>(), 20);
    assert_ends(&lab, &node, &volume).await;
}

/// A tarball of a flake whose `it` waits for the gate, and of 2 MB that don't compress.
fn serve_flake(lab: &Lab, cache: &Cache, gate: &Gate) -> String {
    let system = format!("\"{}\"", System::current());
    let it = gate.expression().replace("builtins.currentSystem", &system);
    let dir = lab.path("flake");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("flake.nix"), format!("{{ outputs = _: {{ it = {it}; }}; }}")).unwrap();
    lab.ok("dd", &["if=/dev/urandom", &format!("of={}/big", dir.display()), "bs=1M", "count=2"]);
    let tarball = cache.file("flake.tar.gz");
    let parent = lab.dir.path().to_str().unwrap();
    lab.ok("tar", &["-C", parent, "-czf", tarball.to_str().unwrap(), "flake"]);
    format!("{}/flake.tar.gz#it", cache.url())
}

/// Sources that break off are no fault of the flake's.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_flake_that_is_cut_is_tried_again() {
    let lab = lab!();
    let pace = Pace::of_this_run();
    let gate = Gate::new(&lab, "flake");
    gate.open();
    let mut cache = lab.cache().await;
    let reference = serve_flake(&lab, &cache, &gate);
    let mut settings = paced(pace);
    settings.extend(nix_option("download-attempts=1"));
    let node = node_with(&lab, &settings).await;
    let volume = lab.volume("pod", &[("flakeRef", &reference)]);
    let kubelet = Kubelet::new(&node, &volume, pace);
    cache.throttle(Some(SLOW));
    let interrupted = async {
        until("some of it", async || cache.served_of("flake.tar.gz").bytes > 200_000).await;
        cache.kill().await;
        let told = || kubelet.codes().iter().any(|code| *code != Code::Aborted);
        until("a call to fail of it", async || told()).await;
        cache.throttle(None);
        cache.start().await;
    };
    tokio::join!(kubelet.until_published(), interrupted);
    kubelet.assert_only_retryable();
    assert_eq!(gate.runs(), 1);
    assert_ends(&lab, &node, &volume).await;
}
