//! A namespace that asks for more than a node has, and what that takes from others.
//!
//! How long others' mounts take then is measured; with `NIX_CSI_FULL=1`, as `make nightly` has it, it is asserted:
//!
//! ```text
//! NIX_CSI_FULL=1 cargo test --test security greedy:: -- --nocapture
//! ```

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use futures::future::join_all;
use nix_csi::grpc::client::Code;
use nix_csi::jail::Guard;
use tokio::time::{Instant, timeout};

use crate::lab::{
    Group, Lab, NO_IDLE, Node, Volume, assert_all_ok, assert_nothing_left, code, node_binary,
    unpublish_all, until,
};
use crate::planted;
use crate::world::kubelets;

/// Requests of each kind, which never end.
const EACH: usize = 250;
/// Of each kind at once.
const MOST: usize = 2;
/// Another namespace's build has had its turn by then.
const SHARE: Duration = Duration::from_secs(120);
/// How much longer a mount may take beside them.
const FACTOR: f64 = 2.0;
/// Bytes by which the node may grow for each that waits: its texts, its call and its actors.
const PER_REQUEST: u64 = 128 << 10;

fn evaluation(n: usize) -> String {
    format!("let f = n: if n < 2 then 1 else f (n - 1) + f (n - 2); in f {}", 100 + n)
}

fn build(name: &str, script: &str) -> String {
    format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         args = [ \"-c\" \"{script}\" ]; }}"
    )
}

/// Milliseconds of calls, sorted.
struct Times(Vec<f64>);

impl Times {
    fn at(&self, hundredths: usize) -> f64 {
        self.0[(self.0.len() * hundredths).div_ceil(100).max(1) - 1]
    }
}

/// Publishes of another namespace, of what others of its volumes show, with looks in between.
async fn warm(bench: (&Lab, &Node, &str), count: usize, seen: &mut Seen) -> Times {
    let (lab, node, root) = bench;
    let mut times = Vec::new();
    for n in 0..count {
        if n % 10 == 0 {
            seen.look(lab);
        }
        let volume = kubelets(lab, "warm", "web", ("storePath", root));
        let began = Instant::now();
        node.publish(&volume).await.unwrap();
        times.push(began.elapsed().as_secs_f64() * 1e3);
        node.unpublish(&volume).await.unwrap();
    }
    times.sort_by(f64::total_cmp);
    Times(times)
}

/// What a machine runs that belongs to the greedy one.
#[derive(Debug, Default)]
struct Seen {
    evaluators: usize,
    builders: usize,
    /// Bytes of the node's memory.
    node: u64,
}

impl Seen {
    fn now(lab: &Lab) -> Self {
        let mut seen = Self::default();
        for line in lab.processes() {
            let (pid, rest) = line.split_once(' ').unwrap();
            let command = rest.split_once(' ').map_or("", |(_, command)| command);
            // It may have ended since.
            let status = lab.proc().join(pid).join("status");
            let status = fs::read_to_string(status).unwrap_or_default();
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name));
                value.and_then(|value| value.split_whitespace().next()).unwrap_or_default()
            };
            if field("Name:") == "nix" && field("Uid:") == "30999" {
                seen.evaluators += 1;
            } else if command.starts_with("sh -c : endless") {
                seen.builders += 1;
            } else if command.contains("nix-csi node") && field("Name:") == "nix-csi" {
                seen.node += field("VmRSS:").parse::<u64>().unwrap_or_default() << 10;
            }
        }
        seen
    }

    /// The most of each that was there at once.
    fn look(&mut self, lab: &Lab) {
        let now = Self::now(lab);
        self.evaluators = self.evaluators.max(now.evaluators);
        self.builders = self.builders.max(now.builders);
        self.node = self.node.max(now.node);
    }
}

/// As many processes as the greedy one has, which do the same and know of no node.
struct Load(Vec<Child>);

impl Load {
    fn new(lab: &Lab, yields: bool) -> Self {
        let guard = Guard { yields, grace: Duration::ZERO, ..Guard::default() };
        let script = ["-c".into(), "while :; do :; done".into()];
        let one = |_| {
            let mut command = lab.command(node_binary());
            command.args(guard.arguments(Path::new("/bin/sh"), &script));
            command.stdin(Stdio::piped()).spawn().unwrap()
        };
        Self((0..2 * MOST).map(one).collect())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take()); // its lifeline
            let _ = child.wait();
        }
    }
}

fn greedy(lab: &Lab, name: &str, text: &str) -> Volume {
    kubelets(lab, name, "greedy", ("nixExpr", text))
}

/// Some builds, which come first: what is built is evaluated before. And the rest.
fn requests(lab: &Lab) -> (Vec<Volume>, Vec<Volume>) {
    let endless = |n: usize| build(&format!("endless-{n}"), ": endless; while :; do :; done");
    let builds = (0..EACH).map(|n| greedy(lab, &format!("build-{n}"), &endless(n)));
    let evaluations = (0..EACH).map(|n| greedy(lab, &format!("evaluation-{n}"), &evaluation(n)));
    let mut all: Vec<_> = builds.chain(evaluations).collect();
    let rest = all.split_off(MOST);
    (all, rest)
}

/// Percentiles in milliseconds, and as multiples of those of the first row.
fn table(rows: &[(&str, &Times)]) -> String {
    let (_, usual) = rows[0];
    let row = |(what, times): &(&str, &Times)| {
        let at =
            [50, 90, 99].map(|n| format!("{:8.2} ({:.2})", times.at(n), times.at(n) / usual.at(n)));
        format!("{what:28} {}", at.join("  "))
    };
    let head = format!("{:28} {:>15}  {:>15}  {:>15}", "warm mounts", "p50 ms", "p90 ms", "p99 ms");
    std::iter::once(head).chain(rows.iter().map(row)).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_endless_requests_of_one_namespace_hold_up_no_other() {
    let full = std::env::var_os("NIX_CSI_FULL").is_some_and(|value| value == "1");
    let count = if full { 300 } else { 100 };
    // The only test, then.
    let group = full.then(Group::new).flatten();
    let lab = planted!();
    let policy = lab.path("policy.yaml");
    let text = format!(
        "preset: open\nnamespaces: {{greedy: {{maxBuilds: {MOST}, maxEvaluations: {MOST}}}}}\n"
    );
    fs::write(&policy, text).unwrap();
    let root = lab.closure(&["--arg", "paths", "60"]);
    let settings = ["--policy-file", policy.to_str().unwrap(), "--hold", "1h"];
    let settings = [&settings, NO_IDLE, &["--cancel-grace", "1s"]].concat();
    let node = lab.node(&settings).await;

    let first = kubelets(&lab, "first", "web", ("storePath", &root));
    node.publish(&first).await.unwrap();
    let bench = (&lab, &node, root.as_str());
    warm(bench, 20, &mut Seen::default()).await;
    let before = warm(bench, count, &mut Seen::default()).await;
    let beside = async |yields| {
        let _load = Load::new(&lab, yields);
        warm(bench, count, &mut Seen::default()).await
    };
    let (equals, others) = (beside(true).await, beside(false).await);
    let small = Seen::now(&lab).node;

    let (begun, waiting) = requests(&lab);
    let mut most = Seen::default();
    let measured = async {
        until("all to be asked for", async || node.status().await.builds.len() == 2 * EACH).await;
        until("some to be at work", async || {
            most.look(&lab);
            let seen = Seen::now(&lab);
            (seen.builders, seen.evaluators) == (MOST, MOST)
        })
        .await;
        // One more than may wait.
        let status = node.publish(&greedy(&lab, "more", &evaluation(EACH))).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
        assert!(status.message().contains("(--max-waiting)"), "{status}");
        let during = warm(bench, count, &mut most).await;
        // Another namespace has its share, though nothing of that one's ever ends.
        let mut made = Vec::new();
        for n in 0..3 {
            let hello = build(&format!("hello-{n}"), "echo hello > $out");
            let hello = kubelets(&lab, &format!("hello-{n}"), "web", ("nixExpr", &hello));
            let began = Instant::now();
            let published = timeout(SHARE, node.publish(&hello)).await;
            published.expect("its turn never came").unwrap();
            most.look(&lab);
            println!("evaluated and built in {:.1} s", began.elapsed().as_secs_f64());
            made.push(hello);
        }
        assert_all_ok(&unpublish_all(&node, &made).await);
        assert_eq!(node.status().await.builds.len(), 2 * EACH);
        during
    };
    let asked = async {
        let first = begun.iter().map(|volume| node.publish(volume));
        let rest = async {
            until("builds to begin", async || Seen::now(&lab).builders == MOST).await;
            join_all(waiting.iter().map(|volume| node.publish(volume))).await
        };
        let (first, rest) = tokio::join!(join_all(first), rest);
        first.into_iter().chain(rest).map(code).collect::<Vec<_>>()
    };
    let ends = async {
        let during = measured.await;
        let all: Vec<_> = begun.iter().chain(&waiting).cloned().collect();
        assert_all_ok(&unpublish_all(&node, &all).await);
        during
    };
    let (codes, during) = tokio::join!(asked, ends);
    assert!(codes.iter().all(|code| *code == Code::Aborted), "{codes:?}");
    assert!(most.evaluators <= MOST && most.builders <= MOST, "{most:?}");
    let grown = most.node.saturating_sub(small);
    assert!(grown < PER_REQUEST * 2 * EACH as u64, "{small} bytes, and {grown} more");

    until("nothing of it to be left", async || {
        let seen = Seen::now(&lab);
        seen.builders + seen.evaluators == 0 && node.status().await.builds.is_empty()
    })
    .await;
    let after = warm(bench, count, &mut Seen::default()).await;
    node.unpublish(&first).await.unwrap();
    fs::remove_dir_all(lab.target("pods")).unwrap();
    assert_nothing_left(&lab);

    let rows = [
        ("before", &before),
        ("beside a load that yields", &equals),
        ("beside a load that does not", &others),
        ("beside 500 endless requests", &during),
        ("after", &after),
    ];
    let group = if group.is_some() { "" } else { ", without a control group" };
    println!("n = {count}{group}; the node has {} MiB and {} MiB more", small >> 20, grown >> 20);
    let table = table(&rows);
    println!("{table}");
    for hundredths in [50, 90, 99] {
        // Where others have the processors too, a load that knows of no node shows what that alone costs.
        let usual = before.at(hundredths).max(equals.at(hundredths));
        let ratio = during.at(hundredths) / usual;
        assert!(!full || ratio <= FACTOR, "p{hundredths}: {ratio:.2}\n{table}");
    }
}
