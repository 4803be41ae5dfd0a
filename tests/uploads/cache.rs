//! What arrives in a cache.

use crate::lab;
use crate::lab::Lab;
use crate::world::{ROOTS, all_sent, buildable, closure, uploads};

fn path_info(lab: &Lab, cache: &str, paths: &[String]) -> String {
    let mut args = vec!["--extra-experimental-features", "nix-command"];
    args.extend(["path-info", "--store", cache, "--sigs"]);
    args.extend(paths.iter().map(String::as_str));
    lab.ok("nix", &args)
}

/// A key, and the cache's URL.
fn cache(lab: &Lab) -> (String, String) {
    let [secret, public] = ["secret", "public"].map(|n| lab.path(n).to_str().unwrap().to_owned());
    lab.ok("nix-store", &["--generate-binary-cache-key", "lab-1", &secret, &public]);
    (secret, format!("file://{}", lab.path("cache").display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_built_is_in_the_cache_and_signed() {
    let lab = lab!();
    let (key, url) = cache(&lab);
    let mut node = lab.node(&["--cache", &url, "--signing-key", &key]).await;
    let volume = buildable(&lab, "app", 100);
    node.publish(&volume).await.unwrap();
    all_sent(&lab, &node).await;
    let paths = closure(&lab, &volume);
    assert_eq!(paths.len(), 2);
    let infos = path_info(&lab, &url, &paths);
    let signed = infos.lines().filter(|line| line.contains("lab-1:")).count();
    assert_eq!(signed, 2, "{infos}");
    let metrics = node.metrics();
    for sample in [
        "nixcsi_uploads_total{outcome=\"ok\"} 1\n",
        "nixcsi_uploads_dropped_total 0\n",
        "nixcsi_upload_queue{state=\"waiting\"} 0\n",
        "nixcsi_upload_seconds_count{outcome=\"ok\"} 1\n",
    ] {
        assert!(metrics.contains(sample), "{sample}\n{metrics}");
    }
    // Nothing secret stays when a node ends. Then a key that is none is everybody's trouble, and no
    // mount's.
    let copies = lab.path("run/mounted");
    std::fs::metadata(copies.join("signing-key")).unwrap();
    assert_eq!(node.stop(), Some(0));
    std::fs::metadata(&copies).unwrap_err();
    std::fs::write(&key, "nonsense").unwrap();
    let node = lab.node(&["--cache", &url, "--signing-key", &key]).await;
    let other = buildable(&lab, "other", 100);
    node.publish(&other).await.unwrap();
    let why = crate::world::error(&lab, &node).await;
    assert!(why.starts_with("signing failed: "), "{why}");
    assert_eq!(lab.names(ROOTS).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cache_says_so() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    for args in [&[][..], &["retry"]] {
        let (ok, text) = uploads(&lab, &node, args);
        assert!(
            !ok && text.contains("this node uploads nothing: it has neither --cache"),
            "{text}"
        );
    }
    drop(node);
    let (_, url) = cache(&lab);
    let node = lab.node(&["--cache", &url, "--no-upload"]).await;
    node.publish(&buildable(&lab, "app", 100)).await.unwrap();
    let (ok, text) = uploads(&lab, &node, &[]);
    assert!(!ok && text.contains("or has --no-upload"), "{text}");
}
