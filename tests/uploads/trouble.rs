//! A cache in trouble: the mount is fine, the closure waits, and a person reads why.

use std::time::Duration;

use tokio::time::Instant;

use crate::lab;
use crate::lab::{Mode, until};
use crate::world::{all_sent, buildable, closure, error, root, uploads};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk() {
    let lab = lab!();
    let cache = lab.path("cache").to_str().unwrap().to_owned();
    lab.ok("mkdir", &[&cache]);
    lab.ok("mount", &["-t", "tmpfs", "-o", "size=64k", "small", &cache]);
    let node = lab.node(&["--cache", &format!("file://{cache}")]).await;
    let volume = buildable(&lab, "app", 300_000);
    node.publish(&volume).await.unwrap();
    let why = error(&lab, &node).await;
    assert!(why.starts_with("no space left in the cache: "), "{why}");
    let (ok, text) = uploads(&lab, &node, &[]);
    assert!(ok && text.contains("No space left on device"), "{text}");
    assert!(node.metrics().contains("nixcsi_cache_last_upload{end=\"full\"} 1\n"));
    assert!(text.contains("1 waiting"), "{text}");

    lab.ok("mount", &["-o", "remount,size=8m", &cache]);
    let paths = closure(&lab, &volume);
    let (ok, text) = uploads(&lab, &node, &["retry", root(&paths, "app")]);
    assert!(ok, "{text}");
    all_sent(&lab, &node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_not_there() {
    let lab = lab!();
    let mut cache = lab.cache().await;
    cache.kill().await;
    let settings = ["--nix-option", "download-attempts=1"];
    let node = lab.node(&[&["--cache", &cache.url()], &settings[..]].concat()).await;
    let volume = buildable(&lab, "app", 100);
    let began = Instant::now();
    node.publish(&volume).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(20), "the mount waited");
    let why = error(&lab, &node).await;
    assert!(why.starts_with("the cache does not answer: "), "{why}");
    let (_, text) = uploads(&lab, &node, &[]);
    assert!(text.contains(&why) && text.contains("in "), "{text}");
}

/// It accepts the connection, and that is all.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_hangs_ends_at_the_limit() {
    let lab = lab!();
    let cache = lab.cache().await;
    cache.set(Mode::Hang);
    let node = lab.node(&["--cache", &cache.url(), "--upload-timeout", "2s"]).await;
    node.publish(&buildable(&lab, "app", 100)).await.unwrap();
    let why = error(&lab, &node).await;
    assert_eq!(why, "it took longer than 2s: raise --upload-timeout");
    until("nix copy to end", async || {
        let copies = |line: &String| line.contains(" copy --to ");
        !lab.processes().iter().any(copies)
    })
    .await;
}
