//! Caches that are there and do nothing, or can't.

use std::time::Duration;

use tokio::time::Instant;

use crate::flow::uploaded;
use crate::lab::{self, Lab, Network, until};
use crate::nodes::Client;
use crate::or_skip;

fn hosts() -> Result<(Network, Lab, Lab), String> {
    let network = Network::new()?;
    let (cache, node) = (network.host(1)?, network.host(2)?);
    Ok((network, cache, node))
}

/// SIGSTOP or SIGCONT for every nix-daemon in a machine: sshd goes on.
fn daemons(lab: &Lab, signal: &str) {
    for line in lab.processes().iter().filter(|line| line.contains("nix-daemon")) {
        let pid = line.split(' ').next().unwrap();
        lab.run("kill", &[signal, pid]); // one that has ended meanwhile is fine
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_accepts_and_hangs_holds_up_nothing_for_long() {
    let (_network, cache, b) = or_skip!(hosts());
    let (secret, public) = cache.signing_key("builder");
    let role = cache.cache_role(&[]);
    let client = Client::new(&b, &cache, &role, "b");
    let extra = ["--stall-timeout", "6s", "--upload-timeout", "3s"];
    let node = client.node(&b, &public, &extra).await;
    let sign = ["--option", "secret-key-files", secret.to_str().unwrap()];
    let there = cache.closure(&[&sign[..], &["--argstr", "seed", "there"]].concat());

    daemons(&cache, "-STOP");
    let source = "derivation { name = \"own\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
        args = [ \"-c\" \"echo > $out\" ]; }";
    let own = b.volume("own", &[("nixExpr", source)]);
    let began = Instant::now();
    node.publish(&own).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(node.log().contains("--stall-timeout"), "{}", node.log());
    // It is remembered: the next one is not held up, which would take as long as that.
    let began = Instant::now();
    let next = b.volume("next", &[("nixExpr", &source.replace("own", "next"))]);
    node.publish(&next).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let wanted = b.volume("wanted", &[("storePath", &there)]);
    let error = node.publish(&wanted).await.unwrap_err();
    assert!(error.message().contains("said nothing for 6s"), "{error:?}");
    until("an upload to end at its limit", async || node.log().contains("--upload-timeout")).await;
    daemons(&cache, "-CONT");
}

/// A volume of a new closure of so many bytes, that the node builds by itself.
fn big(bytes: u32, seed: &str) -> String {
    let closures = include_str!("../data/closures.nix");
    let text = closures.replacen("seed ? \"small\"", &format!("seed ? \"{seed}\""), 1).replacen(
        "bytes ? 500000",
        &format!("bytes ? {bytes}"),
        1,
    );
    assert!(text.contains(seed) && text.contains(&bytes.to_string()), "{text}");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_with_a_full_disk_is_told_of_and_filled_later() {
    let (_network, cache, a) = or_skip!(hosts());
    cache.ok("mkdir", &["-p", "/nix/store"]);
    cache.ok("mount", &["-t", "tmpfs", "-o", "size=4m,mode=1775", "small", "/nix/store"]);
    let (secret, public) = a.signing_key("nodes");
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let client = Client::new(&a, &cache, &role, "a");
    let node = client.node(&a, &public, &["--signing-key", secret.to_str().unwrap()]).await;
    let volume = a.volume("big", &[("nixExpr", &big(20_000_000, "full"))]);
    node.publish(&volume).await.unwrap();
    until("the upload to fail", async || node.log().contains("No space left on device")).await;
    let listed = a
        .command(lab::node_binary())
        .args(["uploads", "--admin-endpoint"])
        .arg(format!("unix://{}", node.admin.display()))
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("No space left on device"), "{listed}");
    assert!(uploaded(&node) < 1.0);

    cache.ok("mount", &["-o", "remount,size=100m", "/nix/store"]);
    until("the queue to drain", async || uploaded(&node) >= 1.0).await;
    let root = node.status().await.volumes[0].root.clone();
    cache.ok("nix-store", &["--check-validity", &root]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_while_it_uploads_loses_nothing() {
    let (_network, cache, a) = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let client = Client::new(&a, &cache, &role, "a");
    let signing = ["--signing-key", secret.to_str().unwrap()];
    let node = client.node(&a, &public, &signing).await;
    let volume = a.volume("big", &[("nixExpr", &big(150_000_000, "killed"))]);
    node.publish(&volume).await.unwrap();
    let root = node.status().await.volumes[0].root.clone();
    until("the upload to begin", async || {
        node.metric("nixcsi_upload_queue{state=\"sending\"}") == Some(1.0)
            && !cache.names("/nix/store").iter().all(|name| name.starts_with('.'))
    })
    .await;
    assert!(!cache.run("nix-store", &["--check-validity", &root]).status.success(), "too late");
    node.kill();
    let node = client.node(&a, &public, &signing).await;
    until("the queue to drain", async || uploaded(&node) >= 1.0).await;
    cache.ok("nix-store", &["--verify-path", &root]);
    assert_eq!(node.metric("nixcsi_upload_queue{state=\"waiting\"}"), Some(0.0));
    assert_eq!(node.status().await.volumes[0].root, root);
}
