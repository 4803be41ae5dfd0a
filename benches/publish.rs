//! What a publish costs, through gRPC as the kubelet calls it: a fresh connection per call.
//!
//! ```text
//! cargo bench --bench publish               # the whole table, some minutes
//! cargo bench --bench publish -- --quick    # a smoke run of some seconds
//! cargo bench --bench publish -- --only medium,large
//! cargo bench --bench publish -- --disk     # targets on disk
//! ```
//!
//! The real binary runs in a test's machine (`tests/lab`), its store, views and writable layers on
//! disk, its run directory and the targets on a tmpfs: on ext4 a directory costs more the more were
//! removed in the last minute, and a benchmark removes thousands. Everything is measured in turns, so
//! that noise hits all alike. Writes `target/bench.json`.

#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first error")]

#[path = "publish/alternatives.rs"]
mod alternatives;
#[path = "publish/closures.rs"]
mod closures;
#[path = "publish/collection.rs"]
mod collection;
#[path = "../tests/traces/collector.rs"]
mod collector;
#[path = "publish/expressions.rs"]
mod expressions;
#[path = "../tests/lab/mod.rs"]
mod lab;
#[path = "publish/measured.rs"]
mod measured;
#[path = "publish/report.rs"]
mod report;
#[path = "../tests/traces/spans.rs"]
#[expect(dead_code, reason = "the tests look closer")]
mod spans;
#[path = "publish/traces.rs"]
mod traces;

use std::path::Path;

use lab::{Lab, Node, Volume};
use nix_csi::grpc::client;
use nix_csi::grpc::proto::csi::NodeGetInfoRequest;
use rustix::fs::IFlags;
use tokio::time::Instant;

use closures::{Closure, Size};
use report::{Report, Row};

/// Volumes that are present while a publish is measured again: no step may grow with them.
const MANY: usize = 5000;

/// How much is measured.
struct Plan {
    sizes: Vec<Size>,
    /// Cold publishes of every closure, each of a variant of its own.
    cold: usize,
    /// Warm publishes of every closure.
    warm: usize,
    many: usize,
    /// Rounds of each kind of expression.
    expressions: usize,
    /// Plans of a collection in a large store.
    plans: usize,
    /// Targets on disk rather than on a tmpfs.
    on_disk: bool,
}

impl Plan {
    fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let only = args.iter().position(|a| a == "--only").and_then(|i| args.get(i + 1));
        let wanted = |size: &Size| only.is_none_or(|only| only.split(',').any(|o| o == size.name));
        let sizes = closures::SIZES.iter().copied();
        let on_disk = args.iter().any(|a| a == "--disk");
        if args.iter().any(|a| a == "--quick") {
            let sizes = sizes.take(1).collect();
            Self { sizes, cold: 2, warm: 5, many: 5, expressions: 3, plans: 1, on_disk }
        } else {
            let sizes = sizes.filter(wanted).collect();
            Self { sizes, cold: 10, warm: 300, many: MANY, expressions: 50, plans: 5, on_disk }
        }
    }
}

fn main() {
    let lab = lab!();
    let plan = Plan::from_args();
    for dir in ["run", "targets"] {
        if dir == "run" || !plan.on_disk {
            lab.ok("mount", &["-t", "tmpfs", "tmpfs", lab.path(dir).to_str().unwrap()]);
        }
    }
    away_from_deleted_inodes(&lab.path("nix"));
    eprintln!("building closures");
    let made: Vec<_> = plan.sizes.iter().map(|s| closures::build(&lab, *s, plan.cold)).collect();
    let node = lab.starting_node(&[]);
    let mut report = lab.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut bench = Bench { lab: &lab, node: &node, report: Report::default() };
        runtime.block_on(bench.run(&plan, &made));
        bench.report
    });
    drop(node);
    eprintln!("traces");
    if let Some(closure) = made.first() {
        traces::measure(&lab, closure, plan.warm, &mut report);
    }
    eprintln!("a large store");
    collection::measure(&lab, plan.plans, &mut report);
    let expected = made.iter().map(|c| c.size.name).collect::<Vec<_>>();
    report.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.json"), &expected);
    println!("{}", report.table());
}

/// For a minute ext4 passes over each deleted inode when it makes one near by, and others have
/// deleted here. Below such a directory it starts elsewhere; other file systems don't know the flag.
fn away_from_deleted_inodes(dir: &Path) {
    let dir = std::fs::File::open(dir).unwrap();
    let set = rustix::fs::ioctl_getflags(&dir)
        .and_then(|flags| rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR));
    if let Err(error) = set {
        eprintln!("this file system has no place of its own for new directories: {error}");
    }
}

struct Bench<'a> {
    lab: &'a Lab,
    node: &'a Node,
    report: Report,
}

impl Bench<'_> {
    async fn run(&mut self, plan: &Plan, closures: &[Closure]) {
        self.node.ready().await;
        // First, before anything of the benchmark's was deleted.
        eprintln!("cold publishes");
        for round in 0..plan.cold {
            for closure in closures {
                self.cold(closure, round).await;
            }
        }
        eprintln!("warm publishes");
        for _ in 0..plan.warm {
            for closure in closures {
                self.warm(closure).await;
            }
        }
        self.observations(&closures[0], plan.warm).await;
        self.beside_many(plan, &closures[0]).await;
        self.expressions(plan.expressions).await;
        eprintln!("what takes long");
        for round in 0..plan.cold {
            for closure in closures {
                for (row, seconds) in alternatives::slow(self.lab, closure, round) {
                    self.report.add(row, seconds);
                }
            }
        }
    }

    /// The closure is in the store, but no volume has shown it yet.
    async fn cold(&mut self, closure: &Closure, round: usize) {
        let volume = self.volume(&closure.variants[round]);
        let row = |name| Row::ours(name, closure.size.name);
        self.publish(row("publish-cold"), &volume).await;
        let root = Path::new(&closure.variants[round]).file_name().unwrap();
        let marker = volume.target.join("store").join(root).join("etc/marker");
        assert!(marker.try_exists().unwrap(), "{} is not shown", marker.display());
        self.unpublish(row("unpublish-cold"), &volume).await;
    }

    async fn warm(&mut self, closure: &Closure) {
        let name = closure.size.name;
        self.call(Row::ours("grpc-call", name)).await;
        let volume = self.volume(&closure.variants[0]);
        self.publish(Row::ours("publish-warm", name), &volume).await;
        self.unpublish(Row::ours("unpublish", name), &volume).await;
        let volume = volume.writable();
        self.publish(Row::ours("publish-warm-writable", name), &volume).await;
        self.unpublish(Row::ours("unpublish-writable", name), &volume).await;
        let mut volume = volume;
        volume.attributes.insert("size".to_owned(), "1Gi".to_owned());
        self.publish(Row::ours("publish-warm-bounded", name), &volume).await;
        self.unpublish(Row::ours("unpublish-bounded", name), &volume).await;
        for (row, seconds) in alternatives::bind(self.lab, closure) {
            self.report.add(row, seconds);
        }
    }

    /// The same with many volumes present.
    async fn beside_many(&mut self, plan: &Plan, closure: &Closure) {
        self.scrapes("scrape", closure.size.name);
        eprintln!("publishing {} volumes", plan.many);
        let elsewhere = |n| {
            let volume = self.volume(&closure.variants[0]);
            Volume { target: volume.target.with_file_name(format!("many-{n}")), ..volume }
        };
        let many: Vec<_> = (0..plan.many).map(elsewhere).collect();
        for volume in &many {
            self.node.publish(volume).await.unwrap();
        }
        for _ in 0..plan.warm {
            let row = |name| Row::ours(name, closure.size.name);
            self.call(row("grpc-call-beside-many")).await;
            let volume = self.volume(&closure.variants[0]);
            self.publish(row("publish-warm-beside-many"), &volume).await;
            self.unpublish(row("unpublish-beside-many"), &volume).await;
        }
        self.scrapes("scrape-beside-many", closure.size.name);
        for volume in &many {
            self.node.unpublish(volume).await.unwrap();
        }
    }

    async fn call(&mut self, row: Row) {
        let began = Instant::now();
        let mut node = client::node(&self.node.csi).await.unwrap();
        node.node_get_info(NodeGetInfoRequest {}).await.unwrap();
        drop(node);
        self.report.add(row, began.elapsed());
    }

    async fn publish(&mut self, row: Row, volume: &Volume) {
        let began = Instant::now();
        let published = self.node.publish(volume).await;
        self.report.add(row, began.elapsed());
        published.unwrap();
    }

    async fn unpublish(&mut self, row: Row, volume: &Volume) {
        let began = Instant::now();
        let unpublished = self.node.unpublish(volume).await;
        self.report.add(row, began.elapsed());
        unpublished.unwrap();
        assert!(!volume.target.try_exists().unwrap());
    }

    /// A new pod's volume, with what the kubelet says about the pod.
    fn volume(&self, path: &str) -> Volume {
        self.volume_of("storePath", path)
    }

    fn volume_of(&self, key: &str, value: &str) -> Volume {
        self.lab.volume(
            "bench",
            &[
                (key, value),
                ("csi.storage.k8s.io/pod.name", "bench-5d4f8c7b9-x2x7z"),
                ("csi.storage.k8s.io/pod.namespace", "default"),
                ("csi.storage.k8s.io/pod.uid", "5a7a6e0c-1a52-4c93-9a4b-0b6a0f2f3f0e"),
                ("csi.storage.k8s.io/serviceAccount.name", "default"),
                ("csi.storage.k8s.io/ephemeral", "true"),
            ],
        )
    }
}
