//! What arrives in a cache.

use crate::lab;
use crate::lab::{Lab, until};
use crate::world::{ROOTS, all_sent, buildable, closure, collect, derivations, root, uploads};

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

/// All that is in it, sorted.
fn contents(lab: &Lab) -> Vec<String> {
    let names = lab.names(lab.path("cache").to_str().unwrap());
    let infos = names.iter().filter(|name| name.ends_with(".narinfo"));
    let path = |name: &String| {
        let text = std::fs::read_to_string(lab.path("cache").join(name)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("StorePath: ").map(str::to_owned)).unwrap()
    };
    let mut paths: Vec<_> = infos.map(path).collect();
    paths.sort();
    paths
}

/// The cache has what a store needs that has nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_built_can_be_built_again_from_the_cache() {
    let lab = lab!();
    let (key, url) = cache(&lab);
    let settings = ["--cache", &url, "--signing-key", &key, "--upload-derivations"];
    let mut node = lab.node(&settings).await;
    let volume = buildable(&lab, "app", 100);
    node.publish(&volume).await.unwrap();
    all_sent(&lab, &node).await;
    let outputs = closure(&lab, &volume);
    let app = root(&outputs, "app");
    let (derivation, inputs) = derivations(&lab, app);
    let mut all = [&outputs[..], &inputs].concat();
    all.sort();
    assert_eq!(contents(&lab), all);
    let metrics = node.metrics();
    assert!(metrics.contains("nixcsi_uploads_total{outcome=\"ok\"} 2\n"), "{metrics}");
    assert!(metrics.contains("\nnixcsi_cache_reachable 1\n"), "{metrics}");
    until("the bytes", async || node.metric::<u64>("nixcsi_upload_bytes_total").unwrap() > 1000)
        .await;

    node.unpublish(&volume).await.unwrap();
    assert_eq!(node.stop(), Some(0));
    lab.ok("rm", &["-r", "/nix/var/nix/gcroots/nix-csi"]);
    collect(&lab);
    for path in [app, &derivation] {
        assert!(!lab.run("nix-store", &["--check-validity", path]).status.success(), "{path}");
    }
    let features = ["--extra-experimental-features", "nix-command"];
    let copy = [&features[..], &["copy", "--from", &url, "--derivation", &derivation]].concat();
    lab.ok("nix", &copy);
    let alone = ["--option", "sandbox", "false", "--option", "substituters", ""];
    assert_eq!(lab.ok("nix-store", &[&["--realise", &derivation], &alone[..]].concat()), app);
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
    assert_eq!(contents(&lab), paths, "no derivations unless asked for");
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
