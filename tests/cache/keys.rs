//! Each key is changed while what it is for goes on, as docs/keys.md says: what is public first, beside what
//! was there, then the key itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::flow::{Hosts, built_at, derivation, hosts, queued, uploaded};
use crate::lab::{CacheRole, Lab, Network, Node, until};
use crate::nodes::{Client, machine_line};
use crate::or_skip;

/// As a kubelet does it: whole at every moment.
fn swap(file: &Path, text: impl AsRef<[u8]>) {
    let staged = file.with_extension("staged");
    fs::write(&staged, text).unwrap();
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o400)).unwrap();
    fs::rename(staged, file).unwrap();
}

fn swap_key(file: &Path, key: &Path) {
    swap(file, fs::read(key).unwrap());
}

/// How often a file of that kind was taken over.
fn taken(metrics: &str, kind: &str) -> u32 {
    let name = format!("nixcsi_config_writes_total{{kind=\"{kind}\"}} ");
    let mut values = metrics.lines().filter_map(|line| line.strip_prefix(&name));
    values.next().map_or(0, |value| value.parse().unwrap())
}

/// Changes a file, and waits until the node has taken it over.
async fn changed(node: &Node, kind: &str, change: impl FnOnce()) {
    let before = taken(&node.metrics(), kind);
    change();
    until("the node to take it over", async || taken(&node.metrics(), kind) > before).await;
}

fn signatures(cache: &Lab, path: &str) -> String {
    let features = ["--extra-experimental-features", "nix-command"];
    cache.ok("nix", &[&features[..], &["path-info", "--sigs", path]].concat())
}

async fn root_of(node: &Node, name: &str) -> String {
    let volumes = node.status().await.volumes;
    let end = format!("-{name}");
    volumes.into_iter().map(|volume| volume.root).find(|root| root.ends_with(&end)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signing_key_is_changed_while_uploads_go_on() {
    let Hosts { network: _network, cache, a, b } = or_skip!(hosts());
    let [(old, old_public), (new, new_public)] = ["nodes-1", "nodes-2"].map(|n| a.signing_key(n));
    let confs = [&cache, &a, &b].map(|lab| lab.path("nix.conf"));
    for conf in &confs {
        fs::write(conf, "").unwrap();
    }
    let [at_cache, at_a, at_b] = confs.each_ref().map(|conf| conf.to_str().unwrap());
    let role = cache.cache_role(&["--trusted-public-key", &old_public, "--nix-conf", at_cache]);
    let mounted = a.path("signing");
    swap_key(&mounted, &old);
    // What is refused once is given up at once.
    let extra = ["--signing-key", mounted.to_str().unwrap(), "--upload-attempts", "1"];
    let [of_a, of_b] = [(&a, "a"), (&b, "b")].map(|(lab, n)| Client::new(lab, &cache, &role, n));
    let node_a = of_a.node(&a, &old_public, &[&extra[..], &["--nix-conf", at_a]].concat()).await;
    let extra = ["--probe-memory", "1s", "--nix-conf", at_b];
    let node_b = of_b.node(&b, &old_public, &extra).await;

    let is_over = AtomicBool::new(false);
    let uploads = async {
        let mut count = 0;
        while !is_over.load(Ordering::Relaxed) {
            let name = format!("n{count}");
            let volume = a.volume(&name, &[("nixExpr", &derivation(&name, ""))]);
            node_a.publish(&volume).await.unwrap();
            count += 1;
        }
        count
    };
    let rotate = async {
        until("the first upload", async || uploaded(&node_a) >= 1.0).await;
        for conf in &confs {
            swap(conf, format!("extra-trusted-public-keys = {new_public}\n"));
        }
        let renewed = |log: String| log.contains("started anew; what the last one does goes on");
        until("all to trust both", async || {
            renewed(role.log()) && renewed(node_a.log()) && renewed(node_b.log())
        })
        .await;
        changed(&node_a, "signing-key", || swap_key(&mounted, &new)).await;
        let volume = a.volume("last", &[("nixExpr", &derivation("last", ""))]);
        node_a.publish(&volume).await.unwrap();
        is_over.store(true, Ordering::Relaxed);
    };
    let (count, ()): (u32, ()) = tokio::join!(uploads, rotate);
    assert!(count > 2, "nothing went on");
    until("all uploads", async || queued(&node_a) == 0.0).await;
    let dead = node_a.metric("nixcsi_upload_queue{state=\"dead\"}");
    assert_eq!((uploaded(&node_a), dead), (f64::from(count) + 1.0, Some(0.0)), "{}", node_a.log());

    let (first, last) = (root_of(&node_a, "n0").await, root_of(&node_a, "last").await);
    let signed = signatures(&cache, &first);
    assert!(signed.contains("nodes-1:") && !signed.contains("nodes-2:"), "{signed}");
    let signed = signatures(&cache, &last);
    assert!(signed.contains("nodes-2:") && !signed.contains("nodes-1:"), "{signed}");
    for (name, path) in [("first", &first), ("last", &last)] {
        node_b.publish(&b.volume(name, &[("storePath", path)])).await.unwrap();
    }
}

/// A cache with that host key.
fn cache_with<'l>(cache: &'l Lab, host_key: &Path, secret: &Path) -> CacheRole<'l> {
    let [host_key, secret] = [host_key, secret].map(|path| path.to_str().unwrap());
    cache.cache_role(&["--ssh-host-key", host_key, "--signing-key", secret])
}

fn known(keys: &[&PathBuf]) -> String {
    let line = |key: &&PathBuf| {
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        format!("{} {public}", Network::address(1))
    };
    keys.iter().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caches_host_key_is_changed_and_no_mount_fails() {
    let Hosts { network: _network, cache, a, b: _b } = or_skip!(hosts());
    let (secret, public) = cache.signing_key("cache");
    let sign = ["--option", "secret-key-files", secret.to_str().unwrap(), "--argstr", "seed"];
    let there = ["old", "both", "new", "stolen"]
        .map(|seed| (seed, cache.closure(&[&sign[..], &[seed]].concat())));
    let [old, new] = ["host-1", "host-2"].map(|name| cache.ssh_key(name));
    let host_key = cache.path("host");
    swap_key(&host_key, &old);
    let mut role = cache_with(&cache, &host_key, &secret);
    let key = a.ssh_key("a");
    cache.authorize("a", &key);
    let store = format!("ssh-ng://nix@{}", Network::address(1));
    let client = Client { key, known: a.path("known_hosts"), store };
    fs::write(&client.known, known(&[&old])).unwrap();
    let node = client.node(&a, &public, &["--probe-memory", "1s"]).await;
    let fetch = async |n: usize| {
        let (name, path) = &there[n];
        node.publish(&a.volume(name, &[("storePath", path)])).await
    };
    fetch(0).await.unwrap();

    changed(&node, "known-hosts", || swap(&client.known, known(&[&old, &new]))).await;
    swap_key(&host_key, &new);
    assert_eq!(role.stop(), Some(0));
    // Without its cache the node goes on, and asks again.
    let own = a.volume("own", &[("nixExpr", &derivation("own", ""))]);
    node.publish(&own).await.unwrap();
    role = cache_with(&cache, &host_key, &secret);
    until("the cache with its new key", async || fetch(1).await.is_ok()).await;
    changed(&node, "known-hosts", || swap(&client.known, known(&[&new]))).await;
    fetch(2).await.unwrap();

    // Who has the old one is nobody any more.
    swap_key(&host_key, &old);
    assert_eq!(role.stop(), Some(0));
    let _role = cache_with(&cache, &host_key, &secret);
    fetch(3).await.unwrap_err();
    let words = "Host key verification failed";
    until("the node's refusal", async || node.log().contains(words)).await;
}

/// Its authorized keys, from a directory.
fn let_in(lab: &Lab, keys: &[&PathBuf]) {
    let text: String =
        keys.iter().map(|key| fs::read_to_string(key.with_extension("pub")).unwrap()).collect();
    swap(&lab.path("keys/cache.pub"), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caches_key_for_builders_is_changed_under_a_build() {
    let Hosts { network: _network, cache, a, b } = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let [old, new] = ["builder-1", "builder-2"].map(|name| cache.ssh_key(name));
    let mounted = cache.path("builder");
    swap_key(&mounted, &old);
    let extra = ["--trusted-public-key", &public, "--builder-key", mounted.to_str().unwrap()];
    let role = cache.cache_role(&extra);
    let signing = ["--signing-key", secret.to_str().unwrap(), "--build-on", "cache"];
    let node = Client::new(&a, &cache, &role, "a").node(&a, &public, &signing).await;
    fs::create_dir_all(b.path("keys")).unwrap();
    let_in(&b, &[&old]);
    let own_secret = b.path("builders.secret");
    fs::copy(&secret, &own_secret).unwrap();
    let authorized = b.path("keys");
    let sshd = ["--ssh-listen", "0.0.0.0:22", "--authorized-keys", authorized.to_str().unwrap()];
    let signing = ["--signing-key", own_secret.to_str().unwrap()];
    let builds = Client::new(&b, &cache, &role, "b");
    let builder = builds.node(&b, &public, &[&sshd[..], &signing].concat()).await;
    let line = machine_line(3, &b, 2, "-");
    cache.inside(|| fs::write("/nix/var/run/machines", line)).unwrap();

    let slow = derivation("slow", "").replace(
        "touch",
        "touch /nix/var/built/started; until [ -e /nix/var/go ]; do sleep 0.1; done; touch",
    );
    let volume = a.volume("slow", &[("nixExpr", &slow)]);
    let rotate = async {
        until("the build to run", async || built_at(&b) > 0).await;
        changed(&builder, "authorized-keys", || let_in(&b, &[&old, &new])).await;
        let before = taken(&role.get("/metrics"), "private-key");
        swap_key(&mounted, &new);
        until("the cache to take it over", async || {
            taken(&role.get("/metrics"), "private-key") > before
        })
        .await;
        changed(&builder, "authorized-keys", || let_in(&b, &[&new])).await;
        let next = a.volume("next", &[("nixExpr", &derivation("next", ""))]);
        node.publish(&next).await.unwrap();
        assert_eq!(built_at(&b), 2, "the slow build is over: nothing was shown");
        b.ok("touch", &["/nix/var/go"]);
    };
    let (published, ()) = tokio::join!(node.publish(&volume), rotate);
    published.unwrap();
    assert_eq!((built_at(&cache), built_at(&a), built_at(&b)), (0, 0, 3));
    // Each with its own.
    for key in [old, new] {
        let public = key.with_extension("pub");
        let print = cache.ok("ssh-keygen", &["-lf", public.to_str().unwrap()]);
        assert!(builder.log().contains(print.split(' ').nth(1).unwrap()), "{}", builder.log());
    }
}
