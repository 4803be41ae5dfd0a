//! A cache and two nodes: what one builds, the other fetches; where the cache builds.

use nix_csi::model::{Announcement, Feature, System};

use crate::lab::{Lab, Network, Node, until};
use crate::nodes::{Client, builder, machine_line};
use crate::or_skip;

pub(crate) struct Hosts {
    pub(crate) network: Network,
    pub(crate) cache: Lab,
    pub(crate) a: Lab,
    pub(crate) b: Lab,
}

pub(crate) fn hosts() -> Result<Hosts, String> {
    let network = Network::new()?;
    let [cache, a, b] = [1, 2, 3].map(|n| network.host(n));
    let hosts = Hosts { network, cache: cache?, a: a?, b: b? };
    for lab in [&hosts.cache, &hosts.a, &hosts.b] {
        lab.ok("install", &["-d", "-m", "1777", "/nix/var/built"]);
    }
    Ok(hosts)
}

/// A builder that leaves a mark in the machine that runs it.
const BUILD: &str = "touch /nix/var/built/$name; echo > $out";

pub(crate) fn derivation(name: &str, more: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; {more} args = [ \"-c\" \"{BUILD}\" ]; }}"
    )
}

/// How many derivations were built in a machine.
pub(crate) fn built_at(lab: &Lab) -> usize {
    lab.names("/nix/var/built").len()
}

pub(crate) fn queued(node: &Node) -> f64 {
    let of =
        |state| node.metric::<f64>(&format!("nixcsi_upload_queue{{state=\"{state}\"}}")).unwrap();
    of("waiting") + of("sending")
}

pub(crate) fn uploaded(node: &Node) -> f64 {
    node.metric("nixcsi_uploads_total{outcome=\"ok\"}").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_builds_the_other_fetches() {
    let Hosts { network, cache, a, b } = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let secret = secret.to_str().unwrap();
    let signing = ["--signing-key", secret, "--probe-memory", "1s", "--upload-derivations"];
    let (at_a, at_b) = (Client::new(&a, &cache, &role, "a"), Client::new(&b, &cache, &role, "b"));
    let node_a = at_a.node(&a, &public, &signing).await;
    let node_b = at_b.node(&b, &public, &["--probe-memory", "1s"]).await;

    let source = derivation("one", "");
    let built = a.volume("one", &[("nixExpr", &source)]);
    node_a.publish(&built).await.unwrap();
    until("the uploads", async || uploaded(&node_a) >= 2.0).await;
    let path = node_a.status().await.volumes[0].root.clone();
    let drv = a.ok("nix-store", &["-qd", &path]);
    cache.ok("nix-store", &["--check-validity", &path, &drv]);
    assert_eq!(cache.ok("nix-store", &["--query", "--outputs", &drv]), path);

    // The same expression on B is fetched: nothing is built there.
    let fetched = b.volume("one", &[("nixExpr", &source)]);
    node_b.publish(&fetched).await.unwrap();
    assert_eq!(node_b.status().await.volumes[0].root, path);
    assert_eq!((built_at(&a), built_at(&b)), (1, 0));

    // While the cache is away, a node builds, and what it has to send waits.
    network.plug(1, false);
    let later = derivation("two", "");
    let volume = b.volume("two", &[("nixExpr", &later)]);
    node_b.publish(&volume).await.unwrap();
    let two = a.volume("two", &[("nixExpr", &later)]);
    node_a.publish(&two).await.unwrap();
    until("the upload to wait", async || {
        node_a.metric("nixcsi_upload_queue{state=\"waiting\"}") == Some(2.0)
    })
    .await;
    network.plug(1, true);
    until("the queue to drain", async || queued(&node_a) == 0.0).await;
    // What B has built, and not what it had from the cache.
    until("the other's upload", async || uploaded(&node_b) > 0.0 && queued(&node_b) == 0.0).await;
    assert!(uploaded(&node_b) < 2.0);
    let two = node_a.status().await.volumes.into_iter().find(|v| v.root != path).unwrap();
    cache.ok("nix-store", &["--check-validity", &two.root]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_builds_where_a_feature_is_and_spreads_the_rest() {
    let Hosts { network: _network, cache, a, b } = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let extra = ["--build-on", "cache"];
    let keys = (&*secret, &*public);
    let node_a = builder((&a, "a"), &cache, &role, keys, &extra).await;
    let only_b = ["--nix-option", "extra-system-features=only-b"];
    let node_b = builder((&b, "b"), &cache, &role, keys, &[&extra[..], &only_b].concat()).await;
    // A builder says itself what it can do.
    let ask = format!("exec 3<>/dev/tcp/{}/22; head -n 1 <&3", Network::address(3));
    // A node is ready without its sshd.
    let mut said = String::new();
    until("a greeting", async || {
        said = String::from_utf8(cache.run("bash", &["-c", &ask]).stdout).unwrap();
        !said.is_empty()
    })
    .await;
    let said = Announcement::parse(said.trim());
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(said.max_jobs.unwrap().get() as usize, cores);
    assert!(said.systems.contains(&System::current()), "{said}");
    assert!(said.features.contains(&Feature::parse("only-b").unwrap()), "{said}");
    let machines = machine_line(2, &a, 2, "-") + &machine_line(3, &b, 2, "only-b");
    cache.inside(|| std::fs::write("/nix/var/run/machines", machines)).unwrap();

    let source = derivation("needs-b", "requiredSystemFeatures = [ \"only-b\" ];");
    let volume = a.volume("needs-b", &[("nixExpr", &source)]);
    node_a.publish(&volume).await.unwrap();
    assert_eq!((built_at(&cache), built_at(&a), built_at(&b)), (0, 0, 1), "{}", role.log());

    // Eight at once, asked for on both nodes: two slots each.
    let source = |n: usize| derivation(&format!("n{n}"), "").replace("touch", "sleep 1; touch");
    let publish = |n: usize| {
        let (lab, node) = if n < 4 { (&a, &node_a) } else { (&b, &node_b) };
        let volume = lab.volume(&format!("n{n}"), &[("nixExpr", &source(n))]);
        async move { node.publish(&volume).await.unwrap() }
    };
    futures::future::join_all((0..8).map(publish)).await;
    let (at_a, at_b) = (built_at(&a), built_at(&b) - 1);
    assert_eq!((built_at(&cache), at_a + at_b), (0, 8));
    assert!(at_a >= 2 && at_b >= 2, "{at_a} on A, {at_b} on B");
}

/// A Secret that is changed, as a kubelet does it: who has the new key comes in, who has the old one no
/// more, and what is under way goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_changed_under_a_build() {
    let Hosts { network: _network, cache, a, b } = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let extra = ["--build-on", "cache", "--signing-key", secret.to_str().unwrap()];
    let client = Client::new(&a, &cache, &role, "a");
    let node = client.node(&a, &public, &extra).await;
    let _builder = builder((&b, "b"), &cache, &role, (&secret, &public), &[]).await;
    let line = machine_line(3, &b, 2, "-");
    cache.inside(|| std::fs::write("/nix/var/run/machines", line)).unwrap();

    let slow =
        derivation("slow", "").replace("touch", "touch /nix/var/built/started; sleep 6; touch");
    let volume = a.volume("slow", &[("nixExpr", &slow)]);
    let publish = node.publish(&volume);
    let rotate = async {
        until("the build to run", async || built_at(&b) > 0).await;
        let next = a.ssh_key("next");
        let refused = |key: &std::path::Path| {
            let to = format!("nix@{}", Network::address(1));
            let output = a.ssh(key, &client.known, &[&to]);
            String::from_utf8_lossy(&output.stderr).contains("Permission denied")
        };
        assert!(refused(&next) && !refused(&client.key));
        cache.authorize("a", &next);
        until("the new key to count", async || !refused(&next) && refused(&client.key)).await;
        assert_eq!(built_at(&b), 1, "the build is over: nothing was shown");
        // The node's own Secret follows.
        std::fs::copy(&next, &client.key).unwrap();
    };
    let (published, ()) = futures::future::join(publish, rotate).await;
    published.unwrap();
    assert_eq!(built_at(&b), 2);
}

/// The cache takes it from there as it is; nobody would believe it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_builder_had_before_it_had_a_key_is_signed() {
    let Hosts { network: _network, cache, a, b } = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let before = derivation("before", "");
    let no_sandbox = ["--option", "sandbox", "false", "--no-out-link", "-E"];
    let had = b.ok("nix-build", &[&no_sandbox[..], &[&before]].concat());
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let keys = (&*secret, &*public);
    let node_a = builder((&a, "a"), &cache, &role, keys, &["--build-on", "cache"]).await;
    let _node_b = builder((&b, "b"), &cache, &role, keys, &[]).await;
    let machines = machine_line(3, &b, 1, "-");
    cache.inside(|| std::fs::write("/nix/var/run/machines", machines)).unwrap();
    let volume = a.volume("before", &[("nixExpr", &before)]);
    node_a.publish(&volume).await.unwrap();
    assert_eq!(node_a.status().await.volumes[0].root, had);
    assert_eq!((built_at(&cache), built_at(&a), built_at(&b)), (0, 0, 1));
}
