//! A cache that is full of sessions, and builds whose parts wait for each other there.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::crowd::{Noise, build_at};
use crate::flow::built_at;
use crate::lab::{Lab, Network, until};
use crate::nodes::{Client, builder, machine_line};
use crate::or_skip;

fn hosts() -> Result<(Network, Lab, Lab, Lab), String> {
    let network = Network::new()?;
    let (cache, a, b) = (network.host(1)?, network.host(2)?, network.host(3)?);
    for lab in [&cache, &a, &b] {
        lab.ok("install", &["-d", "-m", "1777", "/nix/var/built"]);
    }
    Ok((network, cache, a, b))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_on_without_a_cache_that_is_full_and_asks_again() {
    let (_network, cache, a, _b) = or_skip!(hosts());
    let (secret, public) = cache.signing_key("builder");
    let there = Noise { name: "there", bytes: 10_000 }.at(&cache, &secret);
    let role = cache.cache_role(&["--max-sessions", "1"]);
    let client = Client::new(&a, &cache, &role, "a");
    let node = client.node(&a, &public, &["--probe-memory", "1s"]).await;

    let mut only = session(&a, &client);
    until("the session", async || role.get("/metrics").contains("nixcsi_cache_sessions 1\n")).await;

    let source = "derivation { name = \"own\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
        args = [ \"-c\" \"echo > $out\" ]; }";
    node.publish(&a.volume("own", &[("nixExpr", source)])).await.unwrap();
    let wanted = a.volume("wanted", &[("storePath", &there)]);
    let error = node.publish(&wanted).await.unwrap_err();
    assert!(error.message().contains("does not answer: cannot open connection"), "{error:?}");
    // The session's own word is in the log of the node, and the cache's own in its.
    assert!(node.log().contains("--max-sessions"), "{}", node.log());
    assert!(role.log().contains("--max-sessions"), "{}", role.log());
    assert!(!role.get("/metrics").contains("nixcsi_cache_sessions_refused_total 0\n"));

    drop(only.stdin.take());
    only.wait().unwrap();
    until("the cache is asked again", async || node.publish(&wanted).await.is_ok()).await;
}

/// A session that says nothing, and lasts until its input ends.
fn session(lab: &Lab, client: &Client) -> Child {
    let mut ssh = lab.command("ssh");
    ssh.args(["-T", "-F", "none", "-o", "BatchMode=yes", "-i"]).arg(&client.key);
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", client.known.display()));
    ssh.arg(format!("nix@{}", Network::address(1))).stdin(Stdio::piped());
    ssh.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// ssh's own exit code says that it did not.
fn gets_in(lab: &Lab, client: &Client) -> bool {
    let mut session = session(lab, client);
    drop(session.stdin.take());
    session.wait().unwrap().code() != Some(255)
}

/// One that is stolen, or used by a program that has gone wrong.
#[tokio::test(flavor = "multi_thread")]
async fn one_key_does_not_take_all_sessions() {
    let (_network, cache, a, b) = or_skip!(hosts());
    let role = cache.cache_role(&["--max-sessions", "4", "--max-sessions-per-key", "2"]);
    let [greedy, other] =
        [(&a, "greedy"), (&b, "other")].map(|(lab, name)| Client::new(lab, &cache, &role, name));
    let sessions = |count: usize| format!("nixcsi_cache_sessions {count}\n");
    let has = async |count| role.get("/metrics").contains(&sessions(count));
    for (lab, client) in [(&a, &greedy), (&b, &other)] {
        until("the key to count", async || gets_in(lab, client)).await;
    }
    until("no session", async || has(0).await).await;
    let mut its = [session(&a, &greedy), session(&a, &greedy)];
    until("its sessions", async || has(2).await).await;

    let refused = session(&a, &greedy).wait_with_output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(75), "{said}");
    assert!(said.contains("--max-sessions-per-key") && said.contains("try again later"), "{said}");
    // As sshd's own log has the key.
    let public = greedy.key.with_extension("pub");
    let print = a.ok("ssh-keygen", &["-lf", public.to_str().unwrap()]);
    let print = print.split(' ').nth(1).unwrap();
    let log = role.log();
    let about = log.lines().find(|line| line.contains("a key's sessions are refused"));
    assert!(about.unwrap().contains(print), "{log}");

    // What sshd says to a session is gone when that has read it.
    let blob = std::fs::read_to_string(&public).unwrap();
    let blob = blob.split(' ').nth(1).unwrap();
    let is_said = |file: std::fs::DirEntry| {
        let is_it = file.file_name().to_string_lossy().starts_with("sshauth.");
        is_it && std::fs::read_to_string(file.path()).is_ok_and(|said| said.contains(blob))
    };
    assert!(!cache.inside(|| std::fs::read_dir("/tmp").unwrap().flatten().any(is_said)));

    let mut others = session(&b, &other);
    until("another key's session", async || has(3).await).await;
    drop(its[0].stdin.take());
    its[0].wait().unwrap();
    until("the end of one", async || has(2).await).await;
    let mut next = session(&a, &greedy);
    until("its next", async || has(3).await).await;
    for session in [&mut its[1], &mut others, &mut next] {
        drop(session.stdin.take());
        session.wait().unwrap();
    }
    until("the end of all", async || has(0).await).await;
}

/// It is slow, and slow is not silent: no mount is held up by a queue, and no cache left out for one.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_turn_is_not_taken_for_one_that_hangs() {
    let (_network, cache, a, _b) = or_skip!(hosts());
    let (secret, public) = cache.signing_key("builder");
    // One path, since some versions of Nix fetch several in as many sessions.
    let expression = "derivation { name = \"there\"; system = builtins.currentSystem; \
        builder = \"/bin/sh\"; PATH = \"/bin:/usr/bin\"; \
        args = [ \"-c\" \"head -c 1450000 /dev/urandom > $out\" ]; }";
    let there = build_at(&cache, &secret, "there", expression);
    let role = cache.cache_role(&["--max-transfers", "1"]);
    let client = Client::new(&a, &cache, &role, "a");
    let stall = Duration::from_secs(5);
    let node = client.node(&a, &public, &["--stall-timeout", "5s"]).await;

    // The one turn is somebody's who never gives it back.
    let desk = || UnixStream::connect("/nix/var/run/desk.sock");
    let mut only = cache.inside(desk).unwrap();
    // Of a key that nobody has.
    only.write_all(&[0; 32]).unwrap();
    only.write_all(b"w").unwrap();
    let mut answers = [0; 2];
    only.read_exact(&mut answers).unwrap();
    assert_eq!(&answers, b"+t");
    let began = Instant::now();
    node.publish(&a.volume("there", &[("storePath", &there)])).await.unwrap();
    let took = began.elapsed();
    assert!(took > 2 * stall, "it did not have to wait: {took:?}");
    let log = node.log();
    assert!(!log.contains("--stall-timeout") && !log.contains("is down"), "{log}");
}

/// Prints much, so that it wants a turn, and then waits for the others: each needs what the builder has
/// to fetch from the same cache.
fn meeting(n: usize, input: &str) -> String {
    let script = format!(
        "test -s $input; i=0; while [ $i -lt 30000 ]; do \
         echo 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890; \
         i=$((i + 1)); done; touch /nix/var/built/$name; \
         while [ $(ls /nix/var/built | wc -l) -lt {MEETING} ]; do echo waits; sleep 0.1; done; \
         echo > $out"
    );
    format!(
        "derivation {{ name = \"meeting-{n}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; input = {input}; args = [ \"-c\" \"{}\" ]; }}",
        script.replace('$', "\\$")
    )
}

const MEETING: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn builds_and_what_their_builders_fetch_share_one_turn() {
    let (_network, cache, a, b) = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let at_cache = cache.path("nodes.secret");
    std::fs::copy(&secret, &at_cache).unwrap();
    let names = ["input-0", "input-1", "input-2"];
    let inputs = names.map(|name| Noise { name, bytes: 6_000_000 });
    for input in &inputs {
        input.at(&cache, &at_cache);
    }
    let alone = Noise { name: "alone", bytes: 20_000_000 }.at(&cache, &at_cache);
    let role = cache.cache_role(&["--trusted-public-key", &public, "--max-transfers", "1"]);
    let keys = (&*secret, &*public);
    let node_a = builder((&a, "a"), &cache, &role, keys, &["--build-on", "cache"]).await;
    let node_b = builder((&b, "b"), &cache, &role, keys, &[]).await;
    let machines = machine_line(3, &b, MEETING, "-");
    cache.inside(|| std::fs::write("/nix/var/run/machines", machines)).unwrap();

    let publish = |(n, input): (usize, &Noise)| {
        let source = meeting(n, &input.expression());
        let volume = a.volume(&format!("meeting-{n}"), &[("nixExpr", &source)]);
        let node = &node_a;
        async move { node.publish(&volume).await.unwrap() }
    };
    let builds = futures::future::join_all(inputs.iter().enumerate().map(publish));
    let volume = a.volume("alone", &[("storePath", &alone)]);
    let all = async {
        futures::future::join(builds, async { node_a.publish(&volume).await.unwrap() }).await
    };
    let ended = tokio::time::timeout(Duration::from_secs(180), all).await;
    assert!(ended.is_ok(), "they wait for each other:\n{}", role.log());
    assert_eq!((built_at(&cache), built_at(&a), built_at(&b)), (0, 0, MEETING));
    for node in [&node_a, &node_b] {
        assert_eq!(
            node.metric("nixcsi_substituters_down").map(|down: f64| down > 0.0),
            Some(false)
        );
    }
}

/// Nobody waits for it any more: nothing of it stays, at the cache or at its builder, though it never says
/// a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_build_ends_with_its_client() {
    let (_network, cache, a, b) = or_skip!(hosts());
    let (secret, public) = a.signing_key("nodes");
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let keys = (&*secret, &*public);
    let extra = ["--build-on", "cache", "--cancel-grace", "100ms"];
    let node_a = builder((&a, "a"), &cache, &role, keys, &extra).await;
    let _node_b = builder((&b, "b"), &cache, &role, keys, &[]).await;
    let machines = machine_line(3, &b, 1, "-");
    cache.inside(|| std::fs::write("/nix/var/run/machines", machines)).unwrap();

    let source = "derivation { name = \"silent\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
        PATH = \"/bin:/usr/bin\"; args = [ \"-c\" \"sleep 1234\" ]; }";
    let silent = a.volume("silent", &[("nixExpr", source)]);
    let sleeps = || b.processes().iter().any(|line| line.ends_with("sleep 1234"));
    let cancelled = async {
        until("the build to run", async || sleeps()).await;
        node_a.unpublish(&silent).await.unwrap();
    };
    let (published, ()) = tokio::join!(node_a.publish(&silent), cancelled);
    published.unwrap_err();
    until("the builder's end", async || !sleeps()).await;
    let none = "nixcsi_cache_sessions 0\n";
    until("the session's end", async || role.get("/metrics").contains(none)).await;
}
