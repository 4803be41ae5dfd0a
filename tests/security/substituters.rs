//! Whom a node asks for what a namespace wants, with real caches and a real Nix.

use std::fs;

use nix_csi::grpc::client::Code;

use crate::lab::{Cache, Lab, Node, until};
use crate::planted;
use crate::policy::explain;
use crate::world::{SANDBOXED, builder, kubelets, seen};

/// Something in a cache and nowhere else. Who builds it anew gets another text.
struct Kept {
    expression: String,
    path: String,
    text: String,
}

fn kept(lab: &Lab, cache: &Cache, name: &str) -> Kept {
    let expression = builder(name, "", "$b cat /proc/sys/kernel/random/uuid > $out");
    let options = ["--option", "sandbox", "false", "--option", "substituters", ""];
    let args = [&options[..], &["--no-out-link", "-E", &expression]].concat();
    let path = lab.ok("nix-build", &args);
    let text = lab.ok("cat", &[&path]);
    cache.upload(lab, &path);
    lab.ok("nix-store", &["--delete", "--ignore-liveness", &path]);
    Kept { expression, path, text }
}

/// A node that has both caches, and its policy.
async fn node(lab: &Lab, (one, other): (&Cache, &Cache), policy: &str, more: &[&str]) -> Node {
    let file = lab.path("policy.yaml");
    fs::write(&file, policy).unwrap();
    let substituters = format!("substituters={} {}", one.url(), other.url());
    let options = ["--nix-option", &substituters, "--nix-option", "require-sigs=false"];
    let policy = ["--policy-file", file.to_str().unwrap(), "--failure-backoff", "0s"];
    lab.node(&[SANDBOXED, &options, &policy, more].concat()).await
}

/// What a volume of the namespace has in it, or why there is none.
async fn content(
    lab: &Lab,
    node: &Node,
    namespace: &str,
    source: (&str, &str),
) -> Result<String, (Code, String)> {
    let volume = kubelets(lab, "volume", namespace, source);
    let published = node.publish(&volume).await;
    published.map_err(|status| (status.code(), status.message().to_owned()))?;
    let text = lab.ok("cat", &[&format!("{}/var/result", volume.target.display())]);
    node.unpublish(&volume).await.unwrap();
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_the_policy_leaves_out_is_not_asked_for_the_namespace() {
    let lab = planted!();
    let (open, closed) = (lab.cache().await, lab.cache().await);
    let [public, hidden, other, third, fourth] = [
        (&open, "public"),
        (&closed, "hidden"),
        (&closed, "other"),
        (&closed, "third"),
        (&closed, "fourth"),
    ]
    .map(|(cache, name)| kept(&lab, cache, name));
    let only = format!("substituters: [\"{}/?priority=1\"]", open.url());
    let policy = format!(
        "preset: open\nnamespaces:\n  b: {{{only}}}\n  none: {{substituters: false}}\n  \
         own: {{storePath: public, substituters: []}}\n  odd: {{substituters: [\"https://c.example\"]}}\n"
    );
    let node = node(&lab, (&closed, &open), &policy, &[]).await;

    let (code, text) = content(&lab, &node, "b", ("storePath", &hidden.path)).await.unwrap_err();
    assert_eq!(code, Code::NotFound, "{text}");
    let rule = "the policy's substituters let this namespace fetch from http://127.0.0.1:";
    assert!(text.contains(rule) && text.contains("/?priority=1 alone"), "{text}");
    let before = open.requests();
    let (code, text) = content(&lab, &node, "none", ("storePath", &public.path)).await.unwrap_err();
    assert_eq!(code, Code::NotFound, "{text}");
    assert!(text.contains("let this namespace fetch from nowhere"), "{text}");
    assert_eq!(open.requests(), before);
    let (_, text) = content(&lab, &node, "odd", ("storePath", &public.path)).await.unwrap_err();
    assert!(text.contains("https://c.example alone"), "{text}");
    let told = content(&lab, &node, "b", ("nixExpr", &public.expression)).await;
    assert_eq!(told.as_ref(), Ok(&public.text), "fetched");
    for (namespace, kept) in [("b", &hidden), ("own", &other)] {
        let told = content(&lab, &node, namespace, ("nixExpr", &kept.expression)).await.unwrap();
        assert_ne!(told, kept.text, "built");
    }
    assert_eq!(closed.requests(), 0);

    let third = ("storePath", &*third.path);
    content(&lab, &node, "b", third).await.unwrap_err();
    content(&lab, &node, "a", third).await.unwrap();
    // It is in the node's store now, whose substituters were asked by whoever.
    content(&lab, &node, "b", third).await.unwrap();

    let (allowed, text) = explain(&lab, &node, &["--namespace", "b", "--store-path", third.1]);
    assert!(allowed && text.contains("namespaces.b.substituters"), "{text}");
    assert!(!text.contains("no such substituter"), "{text}");
    let (_, text) = explain(&lab, &node, &["--namespace", "odd"]);
    assert!(text.contains("this node has no such substituter: https://c.example\n"), "{text}");

    fs::write(lab.path("policy.yaml"), policy.replace(&only, "substituters: true")).unwrap();
    let fourth_is_there = async || {
        content(&lab, &node, "b", ("storePath", &fourth.path)).await == Ok(fourth.text.clone())
    };
    until("the policy to count", fourth_is_there).await;
}

/// An evaluation that builds what it imports is a client of the node's daemon, which asks all that it has.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_is_fetched_from_where_it_may_be() {
    let lab = planted!();
    let (open, closed) = (lab.cache().await, lab.cache().await);
    let (hidden, fetched) = (kept(&lab, &closed, "hidden"), kept(&lab, &closed, "fetched"));
    let policy =
        format!("preset: open\nnamespaces: {{b: {{substituters: [\"{}\"]}}}}\n", open.url());
    let more = ["--allow-import-from-derivation", "--eval-mode", "impure"];
    let node = node(&lab, (&open, &closed), &policy, &more).await;
    let text = async |namespace: &str, kept: &Kept| {
        let expression = seen(&format!("builtins.readFile ({})", kept.expression));
        content(&lab, &node, namespace, ("nixExpr", &expression)).await.unwrap()
    };
    assert_ne!(text("b", &hidden).await, hidden.text, "built");
    assert_eq!(closed.requests(), 0);
    assert_eq!(text("a", &fetched).await, fetched.text, "fetched");
}
