//! `/metrics`: by actor, and nothing by volume. What dashboards and alerts ask of it is in `tests/deployed` and
//! `tests/observed`.

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
}
