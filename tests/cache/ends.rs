//! How a node's last upload ended, which `nix-csi check` reads.

use nix_csi::k8s::canary_expression;

use crate::lab::{Network, eventually, until};
use crate::nodes::Client;
use crate::or_skip;
use crate::ssh::pair;

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_refused_is_told_from_a_cache_that_is_down() {
    let (_network, cache, a) = or_skip!(pair());
    let (secret, public) = a.signing_key("nodes");
    let mut role = cache.cache_role(&["--trusted-public-key", &public]);
    let client = Client::new(&a, &cache, &role, "a");
    let extra = ["--signing-key", secret.to_str().unwrap(), "--build-on", "auto"];
    let node = client.node(&a, &public, &extra).await;
    let ended = async |end: &str| {
        let sample = format!("nixcsi_cache_last_upload{{end=\"{end}\"}} 1\n");
        until(&sample, async || node.metrics().contains(&sample)).await;
    };
    let mount = async |name: &str| {
        let volume = a.volume(name, &[("nixExpr", &canary_expression(name))]);
        node.publish(&volume).await.unwrap();
    };
    ended("none").await;
    mount("first").await;
    ended("ok").await;

    cache.authorize("a", &a.ssh_key("other"));
    let to = format!("nix@{}", Network::address(1));
    eventually("the node's key to be let in no more", || {
        let output = a.ssh(&client.key, &client.known, &[&to, "id"]);
        String::from_utf8_lossy(&output.stderr).contains("Permission denied")
    });
    mount("second").await;
    ended("key-refused").await;

    assert_eq!(role.stop(), Some(0));
    mount("third").await;
    ended("unreachable").await;
}
