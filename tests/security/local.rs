//! Flakes of the node, by reference and as inputs.

use std::fs;

use nix_csi::grpc::client::Code;

use crate::planted;
use crate::world::{MARK, TOKEN, publish, refusal, traces};

/// The reference, and what it names.
const LOCAL: &[(&str, &str)] = &[
    ("path:DIR", "a file of the node"),
    ("path:DIR#x", "a file of the node"),
    ("file:FILE", "a file of the node"),
    ("file://FILE", "a file of the node"),
    ("git+file://DIR", "a file of the node"),
    ("git+file:DIR?ref=main", "a file of the node"),
    ("hg+file://DIR", "a file of the node"),
    ("tarball+file://FILE", "a file of the node"),
    ("file+file://FILE", "a file of the node"),
    ("DIR", "a file of the node"),
    ("/..DIR", "a file of the node"),
    ("./x", "a file of the node"),
    ("#x", "a file of the node"),
    ("nixpkgs#hello", "a flake of a registry"),
    ("flake:nixpkgs", "a flake of a registry"),
];

/// Nobody is asked for it.
const NO_REGISTRY: &[&str] = &["--nix-option", "flake-registry=/nowhere/registry.json"];

fn with(text: &str) -> String {
    let (dir, _) = TOKEN.rsplit_once('/').unwrap();
    text.replace("FILE", TOKEN).replace("DIR", dir)
}

#[tokio::test]
async fn a_pods_reference_to_the_node_is_refused_before_nix_sees_it() {
    let lab = planted!();
    let node = lab.node(NO_REGISTRY).await;
    for (reference, what) in LOCAL {
        let reference = with(reference);
        let shown: String = reference.chars().take(80).collect();
        let expected = format!(
            "volumeAttributes.flakeRef {shown:?} names {what}, which pods may not: name it in full, \
             such as github:owner/repo; the operator allows it with --allow-local-flakes"
        );
        assert_eq!(refusal(&lab, &node, "flakeRef", &reference).await, expected);
    }
    // Not the first word that is looked at: the jail holds.
    for reference in [" path:DIR", "PATH:DIR", "x/y:DIR"] {
        refusal(&lab, &node, "flakeRef", &with(reference)).await;
    }
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// A person on the node, and a pod where the operator allows it, still get no further than the jail.
#[tokio::test]
async fn a_reference_that_may_be_local_ends_at_the_jail() {
    let lab = planted!();
    let node = lab.node(&[NO_REGISTRY, &["--allow-local-flakes"]].concat()).await;
    for (reference, _) in
        LOCAL.iter().filter(|(text, _)| !text.contains("flake:") && !text.contains("nixpkgs"))
    {
        let reference = with(reference);
        refusal(&lab, &node, "flakeRef", &reference).await;
        let status = node.publish(&lab.volume("v", &[("flakeRef", &reference)])).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{reference}: {status}");
        assert!(!status.message().contains(MARK));
    }
    let text = refusal(&lab, &node, "flakeRef", &with("path:DIR")).await;
    assert!(text.contains("(an evaluation sees the store alone; the operator shows it a directory with --eval-path)"), "{text}");
    assert_eq!(traces(&lab, &node), [""; 0]);
}

/// A flake that the tenant may name has inputs that it may not.
#[tokio::test]
async fn inputs_of_a_flake_are_no_way_around() {
    let lab = planted!();
    let dir = lab.path("flakes");
    fs::create_dir(&dir).unwrap();
    let shown = dir.to_str().unwrap();
    let node = lab.node(&["--eval-path", shown, "--allow-local-flakes"]).await;
    for (n, input) in ["path:DIR", "git+file://DIR", "file://FILE", "tarball+file://FILE", "DIR"]
        .iter()
        .enumerate()
    {
        let flake = dir.join(n.to_string());
        fs::create_dir(&flake).unwrap();
        let text = with(&format!(
            "{{ inputs.i = {{ url = \"{input}\"; flake = false; }};
                outputs = {{ i, ... }}: {{ x = builtins.toFile \"x\" (builtins.readFile \"${{i}}/token\"); }}; }}"
        ));
        fs::write(flake.join("flake.nix"), text).unwrap();
        refusal(&lab, &node, "flakeRef", &format!("path:{shown}/{n}#x")).await;
    }
    // Nor what it leads to.
    let flake = dir.join("link");
    fs::create_dir(&flake).unwrap();
    std::os::unix::fs::symlink(TOKEN, flake.join("token")).unwrap();
    fs::write(
        flake.join("flake.nix"),
        "{ outputs = _: { x = builtins.toFile \"x\" (builtins.readFile ./token); }; }",
    )
    .unwrap();
    let text = refusal(&lab, &node, "flakeRef", &format!("path:{shown}/link#x")).await;
    assert!(text.contains("--eval-mode") || text.contains("--eval-path"), "{text}");
    assert_eq!(traces(&lab, &node), [""; 0]);
    let good = dir.join("good");
    fs::create_dir(&good).unwrap();
    fs::write(good.join("flake.nix"), "{ outputs = _: { x = derivation { name = \"x\"; system = \"SYSTEM\"; builder = \"/bin/sh\"; args = [ \"-c\" \"echo good > $out\" ]; }; }; }".replace("SYSTEM", &nix_csi::model::System::current().to_string())).unwrap();
    publish(&lab, &node, "flakeRef", &format!("path:{shown}/good#x")).await.unwrap();
}
