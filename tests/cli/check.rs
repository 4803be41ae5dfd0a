//! What `nix-csi check` has its canaries mount and run, on a real node; and its command line.

use nix_csi::k8s::canary_expression;

use crate::lab;
use crate::program::run_in;

#[tokio::test]
async fn a_canarys_volume_is_made_by_nix_alone_and_its_store_is_read() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let volume = lab.volume("canary", &[("nixExpr", &canary_expression("a text"))]);
    node.publish(&volume).await.unwrap();
    let canary = |text: &str| run_in(&lab, ".", &["canary", volume.target.to_str().unwrap(), text]);
    assert_eq!(canary("a text").success(), "2 paths");
    let other = canary("another text");
    assert!(other.failure().ends_with("has another text than the check's"), "{other:?}");
}

#[tokio::test]
async fn a_check_without_a_cluster_says_what_it_lacks() {
    let lab = lab!();
    let none = run_in(&lab, ".", &["check", "--kubeconfig", "none"]);
    assert!(none.failure().starts_with("can't configure the Kubernetes client: "), "{none:?}");
    let both = run_in(&lab, ".", &["check", "--all-nodes", "--node", "n"]);
    assert_eq!(both.code, Some(64), "{both:?}");
}
