//! `/metrics`: what dashboards and alerts rely on, and nothing by volume.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::http::get;
use crate::lab;

#[tokio::test]
async fn metrics_are_by_actor_and_never_by_volume() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let path = lab.closure(&["--arg", "paths", "3"]);
    let mut volume = lab.volume("secret-volume", &[("storePath", &path)]);
    let pod = [
        ("csi.storage.k8s.io/pod.name", "secret-pod"),
        ("csi.storage.k8s.io/pod.namespace", "secret-space"),
    ];
    volume.attributes.extend(lab::attrs(&pod));
    node.publish(&volume).await.unwrap();
    let failing = lab.volume("secret-failing", &[("nixExpr", "throw \"secret-text\"")]);
    node.publish(&failing).await.unwrap_err();
    let (code, text) = get(&node, "/metrics");
    assert_eq!(code, 200);
    for actor in ["volumes", "volume", "views", "builds"] {
        for family in ["nixcsi_actor_mailbox_depth", "nixcsi_actor_alive"] {
            let sample = format!("{family}{{actor=\"{actor}\"}} ");
            assert!(text.contains(&sample), "{sample}\n{text}");
        }
        for family in ["nixcsi_actor_queue_seconds", "nixcsi_actor_handle_seconds"] {
            let sample = format!("{family}_count{{actor=\"{actor}\",message=");
            assert!(text.contains(&sample), "{sample}\n{text}");
        }
    }
    assert!(text.contains("nixcsi_volumes{access=\"ro\"} 1\n"), "{text}");
    let cold = "nixcsi_publish_seconds_count{outcome=\"ok\",source=\"storePath\",warm=\"no\"} 1\n";
    assert!(text.contains(cold), "{text}");
    for word in ["secret", "/nix/store", "small-root", lab.dir.path().to_str().unwrap()] {
        assert!(!text.contains(word), "{word}\n{text}");
    }
    for name in promised() {
        let found = text.lines().any(|l| l.starts_with(&format!("# TYPE {name} ")));
        assert!(found, "a dashboard names {name}, which is not there:\n{text}");
    }
}

/// Families that dashboards name. Alerts, also of what a cache alone has, are looked at in `tests/deployed`.
fn promised() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let dashboards = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    for entry in fs::read_dir(dashboards).unwrap().map(Result::unwrap) {
        let text = fs::read_to_string(entry.path()).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for word in words.filter(|w| w.starts_with("nixcsi_")) {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s));
            names.insert(family.unwrap_or(word).to_owned());
        }
    }
    names
}
