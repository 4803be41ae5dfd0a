//! Many nodes that want the same closure at once.
//!
//! Three nodes and a few megabytes; with `NIX_CSI_FULL=1` 50 nodes and 200 MB, which take 12 GB of disk
//! (`NIX_CSI_CROWD_{NODES,BYTES,TRANSFERS}`). `cargo test --test cache crowd:: -- --nocapture` shows
//! the figures.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::lab::{self, Lab, Network, Node, Usage};
use crate::nodes::Client;
use crate::or_skip;

/// Paths of the closure, besides its root.
const PATHS: u64 = 10;

/// A number of this run: the variable's, or by whether the run is a full one.
fn number(variable: &str, quick: u64, full: u64) -> u64 {
    let value = |name: &str| std::env::var_os(name)?.into_string().ok();
    let is_full = value("NIX_CSI_FULL").is_some_and(|value| value == "1");
    let default = if is_full { full } else { quick };
    value(variable).map_or(default, |value| value.parse().unwrap())
}

/// So many nodes, or fewer where the disk has no room for a store of each.
fn room_for(count: u64, bytes: u64) -> u64 {
    let disk = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    let fit = disk.f_bavail * disk.f_frsize / (bytes + bytes / 3);
    if fit < count {
        println!("there is room for {fit} nodes only");
    }
    fit.clamp(2, count)
}

/// A closure of so many bytes that no compression makes less of.
pub(crate) struct Noise {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
}

impl Noise {
    /// The same wherever it is evaluated, and other bytes wherever it is built.
    pub(crate) fn expression(&self) -> String {
        let Self { name, bytes } = self;
        format!(
            r#"(let sh = name: script: derivation {{
                 inherit name; system = builtins.currentSystem; builder = "/bin/sh";
                 PATH = "/bin:/usr/bin"; args = [ "-c" script ];
               }};
               part = n: sh "{name}-${{toString n}}" "head -c {} /dev/urandom > $out";
               parts = builtins.genList part {PATHS};
            in sh "{name}" "for part in ${{toString parts}}; do sha256sum $part; done > $out")"#,
            bytes / PATHS
        )
    }

    /// Builds and signs it there.
    pub(crate) fn at(&self, cache: &Lab, secret: &Path) -> String {
        build_at(cache, secret, self.name, &self.expression())
    }
}

pub(crate) fn build_at(cache: &Lab, secret: &Path, name: &str, expression: &str) -> String {
    let root = cache.path(&format!("root-{name}"));
    let mut args = vec!["--out-link", root.to_str().unwrap()];
    args.extend(["--option", "sandbox", "false", "--option", "substituters", ""]);
    args.extend(["--option", "secret-key-files", secret.to_str().unwrap(), "-E", expression]);
    cache.ok("nix-build", &args)
}

fn hosts(nodes: u8) -> Result<(Network, Lab, Vec<Lab>), String> {
    let network = Network::new()?;
    let cache = network.host(1)?;
    let nodes = (2..2 + nodes).map(|n| network.host(n)).collect::<Result<_, _>>()?;
    Ok((network, cache, nodes))
}

#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_want_the_same_closure_at_once() {
    let count = number("NIX_CSI_CROWD_NODES", 3, 50);
    let bytes = number("NIX_CSI_CROWD_BYTES", 20_000_000, 200_000_000);
    let count = room_for(count, bytes);
    let (_network, cache, labs) = or_skip!(hosts(u8::try_from(count).unwrap()));
    let (secret, public) = cache.signing_key("builder");
    let closure = Noise { name: "crowd", bytes }.at(&cache, &secret);
    let transfers = number("NIX_CSI_CROWD_TRANSFERS", 1, 16);
    let role = cache.cache_role(&["--max-transfers", &transfers.to_string()]);
    let mut nodes: Vec<Node> = Vec::new();
    for (n, lab) in labs.iter().enumerate() {
        let client = Client::new(lab, &cache, &role, &format!("n{n}"));
        nodes.push(client.node(lab, &public, &[]).await);
    }

    let there = cache.names("/nix/store").len();
    let (usage, began) = (Usage::of(&cache), Instant::now());
    let volumes: Vec<_> =
        labs.iter().map(|lab| lab.volume("crowd", &[("storePath", &closure)])).collect();
    let published = join_all(nodes.iter().zip(&volumes).map(async |(node, volume)| {
        let result = node.publish(volume).await;
        (result, began.elapsed())
    }));
    let published = published.await;
    let (total, peak) = (began.elapsed(), usage.stop());

    let failed: Vec<_> = published.iter().filter_map(|(result, _)| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed[0]);
    for (lab, node) in labs.iter().zip(&nodes) {
        // The root lists the sums of what it was made from: as the volume shows them.
        let store = lab.target("crowd").join("store");
        let script = "sed \"s|/nix/store|$0|\" \"$0/$1\" | sha256sum --check --quiet";
        let name = closure.rsplit('/').next().unwrap();
        lab.ok("sh", &["-c", script, store.to_str().unwrap(), name]);
        let log = node.log();
        for trouble in ["a substituter is down", "--stall-timeout", "building '/nix/store"] {
            assert!(!log.contains(trouble), "{trouble}:\n{log}");
        }
    }
    assert_eq!(cache.names("/nix/store").len(), there, "something was made at the cache");
    let said = role.log();
    assert!(!said.contains("building '"), "{said}");
    assert!(!said.contains("--max-sessions"), "{said}");
    assert_eq!(said.contains("--max-transfers"), transfers < count, "{said}");
    report(&published.iter().map(|(_, took)| *took).collect::<Vec<_>>(), total, bytes, &peak);
}

fn report(took: &[Duration], total: Duration, bytes: u64, peak: &lab::Peak) {
    let mut took: Vec<_> = took.iter().map(Duration::as_secs_f64).collect();
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let sent = mega(bytes * took.len() as u64);
    println!(
        "{} nodes, {:.0} MB each: {:.1} s in all, publish p50 {:.1} s, p90 {:.1} s, max {:.1} s; \
         {:.0} MB/s; the cache: at most {} processes, PSS {:.0} MB, RSS {:.0} MB, seconds of CPU {:.1?}",
        took.len(),
        mega(bytes),
        total.as_secs_f64(),
        at(50),
        at(90),
        at(100),
        sent / total.as_secs_f64(),
        peak.processes,
        mega(peak.pss),
        mega(peak.rss),
        peak.cpu,
    );
}
