//! Nodes that fetch from the cache.

use std::path::PathBuf;

use crate::lab::{self, Lab, Network, Node};
use crate::or_skip;
use crate::ssh::pair;

/// A node with a key for the cache, which believes `public`.
pub(crate) struct Client {
    pub(crate) key: PathBuf,
    pub(crate) known: PathBuf,
    pub(crate) store: String,
}

impl Client {
    pub(crate) fn new(lab: &Lab, cache: &Lab, role: &lab::CacheRole<'_>, name: &str) -> Self {
        let key = lab.ssh_key(name);
        cache.authorize(name, &key);
        let known = role.known_hosts(&Network::address(1), lab.path("known_hosts"));
        Self { key, known, store: format!("ssh-ng://nix@{}", Network::address(1)) }
    }

    pub(crate) async fn node(&self, lab: &Lab, public: &str, extra: &[&str]) -> Node {
        let (key, known) = (self.key.to_str().unwrap(), self.known.to_str().unwrap());
        let ssh = ["--ssh-key", key, "--ssh-known-hosts", known];
        let cache = ["--cache", &self.store, "--trusted-public-key", public];
        lab.node(&[&ssh[..], &cache, extra].concat()).await
    }
}

/// A node at which the cache builds.
pub(crate) async fn builder(
    (lab, name): (&Lab, &str),
    cache: &Lab,
    role: &lab::CacheRole<'_>,
    (secret, public): (&std::path::Path, &str),
    extra: &[&str],
) -> Node {
    let client = Client::new(lab, cache, role, name);
    let key = cache.inside(|| std::fs::read("/nix/var/nix-csi/ssh/builder_ed25519.pub")).unwrap();
    std::fs::create_dir_all(lab.path("keys")).unwrap();
    std::fs::write(lab.path("keys/cache.pub"), key).unwrap();
    let keys = lab.path("keys");
    // A machine with another root has no other's files.
    let own_secret = lab.path("builders.secret");
    std::fs::copy(secret, &own_secret).unwrap();
    let extra = [extra, &["--signing-key", own_secret.to_str().unwrap()]].concat();
    let sshd = ["--ssh-listen", "0.0.0.0:22", "--authorized-keys", keys.to_str().unwrap()];
    client.node(lab, public, &[&sshd[..], &extra].concat()).await
}

/// The line of a machines file for such a node.
pub(crate) fn machine_line(n: u8, lab: &Lab, jobs: usize, features: &str) -> String {
    let key = "/nix/var/nix-csi/ssh/host_ed25519.pub";
    let key = lab.ok("sh", &["-c", "cut -d' ' -f1,2 $0 | base64 -w0", key]);
    let address = Network::address(n);
    format!("ssh-ng://nix@{address} x86_64-linux - {jobs} 1 {features} - {key}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_fetches_what_is_signed_and_does_without_a_cache_that_is_down() {
    let (network, cache, b) = or_skip!(pair());
    let (secret, public) = cache.signing_key("builder");
    let role = cache.cache_role(&["--signing-key", secret.to_str().unwrap()]);
    let client = Client::new(&b, &cache, &role, "b");

    let sign = ["--option", "secret-key-files", secret.to_str().unwrap()];
    let signed = cache.closure(&[&sign[..], &["--argstr", "seed", "signed"]].concat());
    let unsigned = cache.closure(&["--argstr", "seed", "unsigned"]);
    let node = client.node(&b, &public, &["--probe-memory", "1s"]).await;

    let volume = b.volume("signed", &[("storePath", &signed)]);
    node.publish(&volume).await.unwrap();
    let log = node.log();
    assert!(log.contains("brought up to date"), "{log}");
    assert!(!log.contains("building '/nix/store"), "{log}");
    let refused = b.volume("unsigned", &[("storePath", &unsigned)]);
    let error = node.publish(&refused).await.unwrap_err();
    let said = error.message();
    assert!(said.contains(&unsigned) && said.contains("--trusted-public-key"), "{said}");

    // The plug is pulled: what can be had without the cache is not held up by it.
    network.plug(1, false);
    let source = "derivation { name = \"own\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
        args = [ \"-c\" \"echo > $out\" ]; }";
    let own = b.volume("own", &[("nixExpr", source)]);
    node.publish(&own).await.unwrap();
    let lacking = cache.closure(&[&sign[..], &["--argstr", "seed", "later"]].concat());
    let later = b.volume("later", &[("storePath", &lacking)]);
    let error = node.publish(&later).await.unwrap_err();
    assert!(error.message().contains(&Network::address(1)), "{error:?}");
    network.plug(1, true);
    crate::lab::until("the cache is asked again", async || node.publish(&later).await.is_ok())
        .await;
}

/// As the setting of before has it: then the cache decides what runs on the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_that_is_trusted_is_believed_without_signatures() {
    let (_network, cache, b) = or_skip!(pair());
    let role = cache.cache_role(&[]);
    let client = Client::new(&b, &cache, &role, "b");
    let unsigned = cache.closure(&["--argstr", "seed", "unsigned"]);
    let (key, known) = (client.key.to_str().unwrap(), client.known.to_str().unwrap());
    let ssh = ["--ssh-key", key, "--ssh-known-hosts", known, "--no-upload", "--cache"];
    let volume = b.volume("unsigned", &[("storePath", &unsigned)]);
    let mut wary = b.node(&[&ssh[..], &[&client.store]].concat()).await;
    wary.publish(&volume).await.unwrap_err();
    assert_eq!(wary.stop(), Some(0));
    let trusted = format!("{}?trusted=1", client.store);
    let node = b.node(&[&ssh[..], &[&trusted]].concat()).await;
    node.publish(&volume).await.unwrap();
    assert_eq!(node.status().await.volumes[0].root, unsigned);
}

/// Root of the cache writes what it likes into its store and its database; a signature is of the contents.
#[tokio::test(flavor = "multi_thread")]
async fn a_cache_gives_a_node_only_what_was_signed() {
    let (_network, cache, b) = or_skip!(pair());
    let (secret, public) = cache.signing_key("builder");
    let role = cache.cache_role(&[]);
    let client = Client::new(&b, &cache, &role, "b");
    let sign = ["--option", "secret-key-files", secret.to_str().unwrap()];
    let signed = |seed: &str| cache.closure(&[&sign[..], &["--argstr", "seed", seed]].concat());
    let [good, changed, hashed, borrowed] = ["good", "changed", "hashed", "borrowed"].map(signed);
    let change = |path: &str| {
        let file = format!("{path}/etc/marker");
        cache.ok("chmod", &["-R", "u+w", path]);
        cache.inside(|| std::fs::write(file, "evil")).unwrap();
    };
    let database = |statement: &str, values: &[&str]| {
        let changed = cache.inside(|| {
            let database = rusqlite::Connection::open("/nix/var/nix/db/db.sqlite").unwrap();
            database.execute(statement, rusqlite::params_from_iter(values)).unwrap()
        });
        assert_eq!(changed, 1);
    };
    // With the hash of what it is now.
    let rehash = |path: &str| {
        change(path);
        let hash = cache.ok("nix-hash", &["--type", "sha256", path]);
        let size = cache.ok("sh", &["-c", "nix-store --dump \"$0\" | wc -c", path]);
        let values = [&*format!("sha256:{hash}"), &size, path];
        database("update ValidPaths set hash = ?1, narSize = ?2 where path = ?3", &values);
    };
    change(&changed);
    rehash(&hashed);
    rehash(&borrowed);
    let of_another = "update ValidPaths set sigs = (select sigs from ValidPaths where path = ?1) where path = ?2";
    database(of_another, &[&good, &borrowed]);

    let node = client.node(&b, &public, &[]).await;
    for (name, path, expected) in [
        ("changed", &changed, "hash mismatch importing path"),
        ("hashed", &hashed, "--trusted-public-key"),
        ("borrowed", &borrowed, "--trusted-public-key"),
    ] {
        let error = node.publish(&b.volume(name, &[("storePath", path)])).await.unwrap_err();
        assert!(error.message().contains(expected), "{name}: {}", error.message());
        assert!(!b.run("nix-store", &["--check-validity", path]).status.success(), "{name}");
    }
    node.publish(&b.volume("good", &[("storePath", &good)])).await.unwrap();
}
