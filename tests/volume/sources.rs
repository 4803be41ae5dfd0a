//! A volume of each kind of source.

use std::fs;

use nix_csi::grpc::client::Code;
use nix_csi::model::System;

use crate::lab;
use crate::lab::{Lab, Node};
use crate::world::{assert_shows, code, in_volume};

/// Publishes, looks at everything, unpublishes; the root it had.
async fn serves(lab: &Lab, node: &Node, attributes: &[(&str, &str)], kind: &str) -> String {
    let volume = lab.volume(kind, attributes);
    node.publish(&volume).await.unwrap();
    let status = node.status().await.volumes.remove(0);
    assert_eq!((status.source_kind.as_str(), status.state.as_str()), (kind, "mounted"));
    assert_shows(lab, &volume, &status.root);
    assert_eq!(in_volume(lab, &volume, "readlink /nix/var/result"), status.root);
    node.unpublish(&volume).await.unwrap();
    assert_eq!(node.status().await.volumes, []);
    status.root
}

#[tokio::test(flavor = "multi_thread")]
async fn each_source_is_served() {
    let lab = lab!();
    let path = lab.closure(&[]);
    let node = lab.node(&[]).await;
    assert_eq!(serves(&lab, &node, &[("storePath", &path)], "storePath").await, path);

    // A function with defaults for everything.
    let function = include_str!("../data/closures.nix").replace("\"small\"", "\"expr\"");
    let built = serves(&lab, &node, &[("nixExpr", &function)], "nixExpr").await;
    assert!(built.ends_with("-expr-root"), "{built}");
    let older = function.replace("\"expr\"", "\"older\"");
    let built = serves(&lab, &node, &[("expression", &older)], "nixExpr").await;
    assert!(built.ends_with("-older-root"), "{built}");

    // The node's system wins, and other systems' keys don't count.
    let system = System::current().to_string();
    let keys = [(system.as_str(), path.as_str()), ("riscv64-linux", "x"), ("nixExpr", "boom")];
    assert_eq!(serves(&lab, &node, &keys, "storePath").await, path);
    let other = lab.volume("other", &[("riscv64-linux", path.as_str())]);
    assert_eq!(code(node.publish(&other).await), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_flake_is_served_from_its_locked_copy() {
    let lab = lab!();
    let dir = lab.path("flake");
    fs::create_dir(&dir).unwrap();
    let system = System::current();
    let flake = format!(
        r#"{{ outputs = _: {{ packages.{system} = {{
             hello = derivation {{
               name = "flaky"; system = "{system}"; builder = "/bin/sh";
               args = [ "-c" "echo from a flake > $out" ];
             }};
           }}; }}; }}"#
    );
    fs::write(dir.join("flake.nix"), flake).unwrap();
    let reference = format!("path:{}", dir.display());
    let features = ["--extra-experimental-features", "nix-command flakes", "--option"];
    let metadata = ["substituters", "", "flake", "metadata", "--json", reference.as_str()];
    let metadata = lab.ok("nix", &[&features[..], &metadata[..]].concat());
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let hash = metadata["locked"]["narHash"].as_str().unwrap();
    let hash = hash.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let copy = metadata["path"].as_str().unwrap();
    let locked = format!("path:{copy}?narHash={hash}#hello");

    let node = lab.node(&[]).await;
    let root = serves(&lab, &node, &[("flakeRef", &locked)], "flakeRef").await;
    assert_eq!(lab.ok("cat", &[&root]), "from a flake");
}
