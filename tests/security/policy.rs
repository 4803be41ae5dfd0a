//! The operator's policy with a real node: whom it refuses, and when it counts.

use std::fs;

use nix_csi::grpc::client::Code;

use crate::lab::{Lab, Node, Volume, until};
use crate::planted;
use crate::world::kubelets;

fn hello(name: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"echo hello > $out\" ]; }}"
    )
}

fn volume(lab: &Lab, name: &str, namespace: &str) -> Volume {
    kubelets(lab, name, namespace, ("nixExpr", &hello(name)))
}

/// Not more than the policy gives it, nor than the node has; what others do with the same is theirs.
#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_ends_at_its_namespaces_limit_and_says_whose_that_is() {
    let lab = planted!();
    let file = lab.path("policy.yaml");
    let text =
        "preset: open\nnamespaces:\n  web: {evaluationTime: 2s}\n  ci: {evaluationMemory: 256Mi}\n";
    fs::write(&file, text).unwrap();
    let node = lab.node(&["--policy-file", file.to_str().unwrap(), "--eval-timeout", "4s"]).await;
    let publish = async |name: &str, namespace: &str, text: &str| {
        node.publish(&kubelets(&lab, name, namespace, ("nixExpr", text))).await
    };
    let endless = "let f = n: if n < 2 then 1 else f (n - 1) + f (n - 2); in f 60";
    let status = publish("web", "web", endless).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let told = "evaluate took longer than 2s: the operator raises namespaces.web.evaluationTime of the policy";
    assert_eq!(status.message(), told);
    // It was another's limit: this one is not told to wait.
    let status = publish("ci", "ci", endless).await.unwrap_err();
    assert_eq!(status.message(), "evaluate took longer than 4s: raise --eval-timeout");
    let large = "builtins.length (builtins.genList (x: x) 15000000)";
    let status = publish("large", "ci", large).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let told = "it needs more than 256 MiB of memory (the operator raises namespaces.ci.evaluationMemory \
                of the policy)";
    assert!(status.message().ends_with(told), "{status}");
    let status = publish("larger", "web", large).await.unwrap_err();
    assert!(!status.message().contains("memory"), "{status}");
}

pub(crate) fn explain(lab: &Lab, node: &Node, args: &[&str]) -> (bool, String) {
    let admin = format!("unix://{}", node.admin.display());
    let all = [&["policy", "explain", "--admin-endpoint", &admin], args].concat();
    let output = lab.run(env!("CARGO_BIN_EXE_nix-csi"), &all);
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_file_counts_for_pods_and_follows_its_file() {
    let lab = planted!();
    let file = lab.path("policy.yaml");
    let node = lab.node(&["--policy-file", file.to_str().unwrap()]).await;
    // Who says nothing of the pod is no operator.
    let nobody = lab.volume("nobody", &[("nixExpr", &hello("nobody"))]);
    let status = node.publish(&nobody).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    // Without a policy the same is allowed.
    let first = volume(&lab, "first", "web");
    node.publish(&first).await.unwrap();
    fs::write(&file, "preset: strict\nnamespaces: {ci: {nixExpr: true}}\n").unwrap();
    let refused = async |name: &str| {
        let volume = volume(&lab, name, "web");
        let answer = node.publish(&volume).await;
        if answer.is_ok() {
            node.unpublish(&volume).await.unwrap();
        }
        answer.err()
    };
    until("the policy to count", async || refused("second").await.is_some()).await;
    let status = refused("third").await.unwrap();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    let told = "the policy refuses this to namespace web (preset strict, nixExpr): volumeAttributes.nixExpr";
    assert!(status.message().starts_with(told), "{status}");
    assert!(node.metrics().contains("nixcsi_policy_refusals_total{what=\"nixExpr\"}"));
    // What runs goes on, also through the kubelet's next call.
    node.publish(&first).await.unwrap();
    lab.ok("cat", &[&format!("{}/var/result", first.target.display())]);
    let other = volume(&lab, "other", "ci");
    node.publish(&other).await.unwrap();

    let (allowed, text) = explain(&lab, &node, &["--namespace", "web", "--expr", "1"]);
    assert!(!allowed && text.contains("preset strict, nixExpr"), "{text}");
    let (allowed, text) = explain(&lab, &node, &["--namespace", "ci", "--expr", "1"]);
    assert!(
        allowed && text.contains("namespaces.ci.nixExpr") && text.contains("is allowed"),
        "{text}"
    );

    // One that is none changes nothing and is told; the next process knows the last good one.
    fs::write(&file, "preset: lax\n").unwrap();
    until("the health to tell", async || node.get("/readyz").contains("policy: ")).await;
    assert!(refused("fourth").await.is_some());
    let (_, text) = explain(&lab, &node, &["--namespace", "web"]);
    assert!(text.contains("does not count") && text.contains("lax"), "{text}");
    node.kill();
    let node = lab.node(&["--policy-file", file.to_str().unwrap()]).await;
    let status = node.publish(&volume(&lab, "fifth", "web")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    for mounted in [first, other] {
        node.unpublish(&mounted).await.unwrap();
    }
}
