//! What settings let through, and no more than that.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::planted;
use crate::world::{OTHERS, TOKEN, content, of_pod, refusal, seen};

#[tokio::test]
async fn an_eval_path_is_shown_and_nothing_beside_it() {
    let lab = planted!();
    lab.ok(
        "sh",
        &[
            "-euc",
            "mkdir -p /run/shown; echo hello > /run/shown/file; cp -p /run/others/key /run/shown/",
        ],
    );
    for mode in ["impure", "restricted"] {
        let mut node = lab
            .node(&[
                "--eval-mode",
                mode,
                "--eval-path",
                "/run/shown",
                "--nix-path",
                "shown=/run/shown",
            ])
            .await;
        let read = seen("builtins.readFile <shown/file>");
        assert_eq!(content(&lab, &node, &read).await, "hello");
        for file in ["/run/shown/key", "/run/shown/../others/key", OTHERS, TOKEN] {
            refusal(&lab, &node, "nixExpr", &seen(&format!("builtins.readFile \"{file}\""))).await;
        }
        node.stop();
    }
}

#[tokio::test]
async fn an_allowed_uri_is_fetched_and_no_other() {
    let lab = planted!();
    let server = lab.cache().await;
    server.put("file", "fetched");
    let url = server.url();
    let read =
        |name: &str| seen(&format!("builtins.readFile (builtins.fetchurl \"{url}/{name}\")"));
    let mut node = lab.node(&[]).await;
    let text = refusal(&lab, &node, "nixExpr", &read("file")).await;
    let expected = format!(
        "access to URI '{url}/file' is forbidden in restricted mode (the operator lists what an expression may fetch with --allowed-uri; a flake may fetch)"
    );
    assert!(text.ends_with(&expected), "{text}");
    assert_eq!(server.requests(), 0);
    node.stop();
    let node = lab.node(&["--allowed-uri", &format!("{url}/file")]).await;
    assert_eq!(content(&lab, &node, &read("file")).await, "fetched");
    refusal(&lab, &node, "nixExpr", &read("other")).await;
}

/// What one tenant has fetched is in a home that no other has.
#[tokio::test]
async fn tenants_have_homes_of_their_own() {
    let lab = planted!();
    let node = lab.node(&["--eval-mode", "impure"]).await;
    let server = lab.cache().await;
    server.put("file", "fetched");
    let fetch = seen(&format!("builtins.readFile (builtins.fetchurl \"{}/file\")", server.url()));
    let list = "throw (\"=\" + builtins.toJSON (builtins.attrNames (builtins.readDir /nix-csi/home/.cache/nix)))";
    let mut homes = Vec::new();
    for tenant in ["web", "db", ""] {
        let mut volume = lab.volume("v", &[("nixExpr", &fetch)]);
        if !tenant.is_empty() {
            volume = of_pod(volume, tenant);
        }
        // Another expression, or its result would be known.
        volume.attributes.insert("nixExpr".to_owned(), format!("{fetch} # {tenant}"));
        node.publish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
        let all = crate::lab::names(&lab.path("nix/var/nix-csi/tenants"));
        let new: Vec<_> = all.into_iter().filter(|home| !homes.contains(home)).collect();
        assert_eq!(new.len(), 1, "{new:?}");
        homes.extend(new);
    }
    // Each has fetched it for itself.
    assert_eq!(server.requests(), 3);
    for home in &homes {
        let path = lab.path("nix/var/nix-csi/tenants").join(home);
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(
            (metadata.mode() & 0o7777, metadata.uid(), metadata.gid()),
            (0o700, 30999, 30999)
        );
        for way in [
            "builtins.readDir \"HOME\"",
            "builtins.readDir \"HOME/.cache\"",
            "builtins.path { path = \"HOME\"; name = \"x\"; }",
        ] {
            let way = way.replace("HOME", &format!("/nix/var/nix-csi/tenants/{home}"));
            let text = refusal(&lab, &node, "nixExpr", &way).await;
            assert!(text.contains("--eval-path"), "{text}");
        }
    }
    let text = refusal(&lab, &node, "nixExpr", list).await;
    assert!(text.contains("=[\""), "{text}");
}
