//! What a cache collects: who reads a path there uses it.

use crate::lab::{CacheRole, Lab, until};
use crate::nodes::Client;
use crate::or_skip;
use crate::ssh::pair;

/// Collects whatever was not used for so long, however full this machine's disk is.
fn eager(older_than: &str) -> Vec<&str> {
    let every =
        ["--gc-interval", "1s", "--gc-look-interval", "200ms", "--gc-high-watermark", "100"];
    [&["--gc-older-than", older_than, "--gc-grace", "0s"], &every[..]].concat()
}

fn cycles(role: &CacheRole<'_>) -> u64 {
    let metrics = role.get("/metrics");
    let ok =
        metrics.lines().find_map(|l| l.strip_prefix("nixcsi_gc_cycles_total{outcome=\"ok\"} "));
    ok.unwrap().parse().unwrap()
}

async fn collections(role: &CacheRole<'_>) {
    let before = cycles(role);
    until("collections", async || cycles(role) > before + 1).await;
}

fn is_valid(lab: &Lab, path: &str) -> bool {
    lab.run("nix-store", &["--check-validity", path]).status.success()
}

/// As if all had come long ago, and these closures had been read three days ago.
fn age(lab: &Lab, closures: &[&String]) {
    for closure in closures {
        let paths = lab.ok("nix-store", &["-qR", closure]);
        let touch = ["-a", "-h", "-d", "3 days ago"];
        lab.ok("touch", &[&touch[..], &paths.lines().collect::<Vec<_>>()].concat());
    }
    lab.inside(|| {
        let database = rusqlite::Connection::open("/nix/var/nix/db/db.sqlite").unwrap();
        database.execute_batch("update ValidPaths set registrationTime = 1000").unwrap();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_stays_and_what_was_goes() {
    let (_network, cache, node) = or_skip!(pair());
    let (secret, public) = cache.signing_key("builder");
    let sign = ["--option", "secret-key-files", secret.to_str().unwrap()];
    let closure = |seed: &str| cache.unrooted(&[&sign[..], &["--argstr", "seed", seed]].concat());
    let [read, unread, new] = ["read", "unread", "new"].map(closure);
    age(&cache, &[&read, &unread]);

    // Nothing is known to be unused for longer than the index is there.
    let role = cache.cache_role(&eager("1h"));
    collections(&role).await;
    assert!([&read, &unread, &new].iter().all(|path| is_valid(&cache, path)));

    let client = Client::new(&node, &cache, &role, "node");
    let reader = client.node(&node, &public, &[]).await;
    let volume = node.volume("read", &[("storePath", &read)]);
    reader.publish(&volume).await.unwrap();
    role.kill();

    let role = cache.cache_role(&eager("1s"));
    until("what was not read to go", async || !is_valid(&cache, &unread)).await;
    collections(&role).await;
    // A reading is noted once a day: it stands for the whole day, as does the making of a path.
    assert!(is_valid(&cache, &read) && is_valid(&cache, &new));
    cache.ok("nix-store", &["--verify", "--check-contents"]);

    // Nobody looked into it for three days.
    age(&cache, &[&new]);
    until("the other one to go", async || !is_valid(&cache, &new)).await;
    assert!(is_valid(&cache, &read));
    assert!(role.get("/readyz").ends_with("\r\n\r\nready\n"), "{}", role.get("/readyz"));
    // To others it is still there.
    reader.unpublish(&volume).await.unwrap();
    reader.publish(&volume).await.unwrap();
}
