//! Mutable flake references: one meaning for the pods of a moment, a new push seen soon.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{
    NO_IDLE, assert_all_ok, assert_nothing_left, publish_all, unpublish_all, until, volumes,
};

#[tokio::test(flavor = "multi_thread")]
async fn ten_pods_get_one_revision_and_a_push_is_seen_soon() {
    let lab = lab!();
    let web = lab.cache().await;
    lab.push_flake(&web, "one");
    let node = lab.node(&[NO_IDLE, &["--refresh-after", "2s"]].concat()).await;
    let reference = format!("{}/flake.tar#x", web.url());
    let revisions = async || -> BTreeSet<_> {
        node.status().await.volumes.into_iter().map(|v| (v.root, v.revision)).collect()
    };
    let asked = || web.served_of("flake.tar").requests;

    let first = volumes(&lab, "first", &[("flakeRef", &reference)], 10);
    assert_all_ok(&publish_all(&node, &first).await);
    let one = revisions().await;
    assert_eq!(one.len(), 1, "{one:?}");
    let (root, revision) = one.first().unwrap();
    assert!(revision.starts_with("sha256-"), "{revision}");
    assert_eq!(fs::read_to_string(lab.path(root.strip_prefix('/').unwrap())).unwrap(), "one\n");
    // Looked up once, and the evaluator used what that brought.
    assert_eq!(asked(), 1);

    lab.push_flake(&web, "two");
    let mut n = 0;
    until("the push to be seen", async || {
        n += 1;
        let volume = lab.volume(&format!("later-{n}"), &[("flakeRef", &reference)]);
        node.publish(&volume).await.unwrap();
        let seen = revisions().await.len() == 2;
        node.unpublish(&volume).await.unwrap();
        seen
    })
    .await;
    assert_eq!(asked(), 2, "{n} volumes");
    // What runs keeps what it has, also over a restart of the driver.
    assert_all_ok(&publish_all(&node, &first).await);
    node.kill();
    let node = lab.node(NO_IDLE).await;
    let kept: BTreeSet<_> =
        node.status().await.volumes.into_iter().map(|v| (v.root, v.revision)).collect();
    assert_eq!(kept, one);
    assert_all_ok(&unpublish_all(&node, &first).await);
}

/// Of a locked reference nothing is asked again, and a known result needs no Nix at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_reference_is_resolved_once() {
    let lab = lab!();
    let mut web = lab.cache().await;
    lab.push_flake(&web, "locked");
    let node = lab.node(&["--refresh-after", "1ms"]).await;
    let mutable = format!("{}/flake.tar#x", web.url());
    let volume = lab.volume("mutable", &[("flakeRef", &mutable)]);
    node.publish(&volume).await.unwrap();
    let status = node.status().await.volumes.remove(0);
    let hash = status.revision.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let locked = format!("{}/flake.tar?narHash={hash}#x", web.url());
    let volume = lab.volume("locked", &[("flakeRef", &locked)]);
    node.publish(&volume).await.unwrap();

    web.kill().await;
    let again = lab.volume("again", &[("flakeRef", &locked)]);
    node.publish(&again).await.unwrap();
    let status = node.status().await.volumes.into_iter().find(|v| v.volume_id == again.id).unwrap();
    assert_eq!(status.origin, "present");
    assert_eq!(status.revision, hash);
    // What the mutable one named last is good enough while nobody answers; of another nothing is
    // known.
    let last = lab.volume("last", &[("flakeRef", &mutable)]);
    node.publish(&last).await.unwrap();
    let unknown = format!("{}/other.tar#x", web.url());
    let unknown = lab.volume("unknown", &[("flakeRef", &unknown)]);
    assert_eq!(node.publish(&unknown).await.unwrap_err().code(), Code::Unavailable);
    let metrics = node.metrics();
    let evaluated = "nixcsi_build_stage_seconds_count{stage=\"evaluating\"} 4";
    assert!(metrics.contains(evaluated), "{metrics}");
}

/// Expressions too: pods of one Deployment that come one after the other share one evaluation.
#[tokio::test(flavor = "multi_thread")]
async fn an_expression_keeps_its_result_for_a_while() {
    let lab = lab!();
    let node = lab.node(&[NO_IDLE, &["--refresh-after", "1h"]].concat()).await;
    let expression = r#"derivation { name = "x"; system = builtins.currentSystem; builder = "/bin/sh";
        args = [ "-c" "echo x > $out" ]; }"#;
    for n in 0..5 {
        let volume = lab.volume(&format!("pod-{n}"), &[("nixExpr", expression)]);
        node.publish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
    }
    assert!(node.metrics().contains("nixcsi_build_stage_seconds_count{stage=\"evaluating\"} 1"));
    // What a collector took is made again.
    assert_nothing_left(&lab);
    lab.ok("nix-store", &["--gc"]);
    let volume = lab.volume("after", &[("nixExpr", expression)]);
    tokio::time::timeout(Duration::from_secs(30), node.publish(&volume)).await.unwrap().unwrap();
    assert!(node.metrics().contains("nixcsi_build_stage_seconds_count{stage=\"evaluating\"} 2"));
}
