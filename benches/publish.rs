//! What a publish costs, through gRPC as the kubelet calls it: a fresh connection per call.
//!
//! ```text
//! cargo bench --bench publish               # the whole table, a quarter of an hour
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

#[path = "publish/access.rs"]
mod access;
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
#[path = "publish/fetch.rs"]
mod fetch;
#[path = "publish/images.rs"]
mod images;
#[path = "../tests/lab/mod.rs"]
mod lab;
#[path = "publish/line.rs"]
mod line;
#[path = "publish/many.rs"]
mod many;
#[path = "publish/measured.rs"]
mod measured;
#[path = "publish/plan.rs"]
mod plan;
#[path = "publish/report.rs"]
mod report;
#[path = "publish/scale.rs"]
mod scale;
#[path = "../tests/traces/spans.rs"]
#[expect(dead_code, reason = "the tests look closer")]
mod spans;
#[path = "publish/traces.rs"]
mod traces;
#[path = "publish/uploads.rs"]
mod uploads;

use std::fs;
use std::path::Path;

use lab::{Lab, Node, Volume};
use nix_csi::grpc::client;
use nix_csi::grpc::proto::csi::NodeGetInfoRequest;
use rustix::fs::IFlags;
use tokio::time::Instant;

use closures::Closure;
use line::OURS;
use plan::Plan;
use report::{Report, Row};

fn main() {
    let lab = lab!();
    let plan = Plan::from_args();
    fs::create_dir(lab.path("state")).unwrap();
    for dir in ["run", "state", "targets"] {
        if dir != "targets" || !plan.on_disk {
            lab.ok("mount", &["-t", "tmpfs", "tmpfs", lab.path(dir).to_str().unwrap()]);
        }
    }
    away_from_deleted_inodes(&lab.path("nix"));
    eprintln!("building closures");
    let made: Vec<_> = plan.sizes.iter().map(|s| closures::build(&lab, *s, plan.cold)).collect();
    if !plan.is_quick {
        forget_deleted_inodes(&lab.path("nix"));
    }
    let mut report = Report::default();
    let state = lab.path("state").to_str().unwrap().to_owned();
    let on_tmpfs = lab.starting_node(&["--state-dir", &state]);
    let mut bench = Bench { lab: &lab, node: &on_tmpfs, report: &mut report };
    block_on(&lab, bench.cold_publishes(&plan, &made, "nix-csi, views on tmpfs"));
    drop(on_tmpfs);
    let node = lab.starting_node(&[]);
    let mut bench = Bench { lab: &lab, node: &node, report: &mut report };
    block_on(&lab, bench.run(&plan, &made));
    drop(node);
    if let Some(closure) = made.first() {
        eprintln!("traces");
        traces::measure(&lab, closure, plan.warm, &mut report);
        eprintln!("restarts with many volumes");
        many::measure(&lab, closure, plan.many[1].0, plan.slow, &mut report);
    }
    eprintln!("fetches");
    fetch::measure(&lab, plan.slow, &mut report);
    eprintln!("large clusters");
    scale::measure(plan.slow, &mut report);
    uploads::measure(plan.slow, &mut report);
    eprintln!("a large store");
    collection::measure(&lab, plan.slow, &mut report);
    let expected = made.iter().map(|c| c.size.name).collect::<Vec<_>>();
    report.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench.json"), &expected);
    println!("{}", report.table());
}

/// For a minute ext4 passes over each deleted inode when it makes one near by, and others have
/// deleted here. Below such a directory it starts elsewhere; other file systems don't know the flag.
fn away_from_deleted_inodes(dir: &Path) {
    let dir = fs::File::open(dir).unwrap();
    let set = rustix::fs::ioctl_getflags(&dir)
        .and_then(|flags| rustix::fs::ioctl_setflags(&dir, flags | IFlags::TOPDIR));
    if let Err(error) = set {
        eprintln!("this file system has no place of its own for new directories: {error}");
    }
}

/// The builders have deleted many. ext4 passes over one for a minute, and for five if it is not on the disk
/// (`recently_deleted` in fs/ext4/ialloc.c).
fn forget_deleted_inodes(dir: &Path) {
    eprintln!("waiting for a minute");
    rustix::fs::syncfs(fs::File::open(dir).unwrap()).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(65));
}

/// In the machine, where the node's sockets are.
fn block_on<T: Send>(lab: &Lab, work: impl Future<Output = T> + Send) -> T {
    lab.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    })
}

struct Bench<'a> {
    lab: &'a Lab,
    node: &'a Node,
    report: &'a mut Report,
}

impl Bench<'_> {
    async fn run(&mut self, plan: &Plan, closures: &[Closure]) {
        // First, before anything of the benchmark's was deleted.
        self.cold_publishes(plan, closures, OURS).await;
        eprintln!("warm publishes");
        for _ in 0..plan.warm {
            for closure in closures {
                self.warm(closure).await;
            }
        }
        self.observations(&closures[0], plan.warm).await;
        eprintln!("many at once");
        self.at_once(&closures[0], plan.slow).await;
        self.beside_many(plan, closures).await;
        self.expressions(plan.expressions).await;
        eprintln!("access");
        for closure in closures.iter().filter(|closure| closure.is_walked()) {
            self.access(closure, plan.slow).await;
        }
        eprintln!("what takes long");
        for round in 0..plan.cold {
            for closure in closures {
                for (row, seconds) in alternatives::slow(self.lab, closure, round) {
                    self.report.add(row, seconds);
                }
            }
        }
    }

    async fn cold_publishes(&mut self, plan: &Plan, closures: &[Closure], by: &'static str) {
        self.node.ready().await;
        eprintln!("cold publishes by {by}");
        for round in 0..plan.cold {
            for closure in closures {
                self.cold(closure, round, by).await;
            }
        }
    }

    /// The closure is in the store, but no volume has shown it yet.
    async fn cold(&mut self, closure: &Closure, round: usize, by: &'static str) {
        let volume = self.volume(&closure.variants[round]);
        let row = |name| Row::other(name, closure.size.name, by);
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
        for (row, seconds) in alternatives::floors(self.lab, closure) {
            self.report.add(row, seconds);
        }
    }

    /// The same with many volumes present.
    async fn beside_many(&mut self, plan: &Plan, closures: &[Closure]) {
        self.scrapes("scrape", closures[0].size.name);
        let mut others = Vec::new();
        for (count, [call, publish, unpublish, scrape]) in plan.many {
            eprintln!("beside {count} volumes");
            while others.len() < count {
                let other = self.numbered(&closures[0], others.len());
                self.node.publish(&other).await.unwrap();
                others.push(other);
            }
            for _ in 0..plan.warm {
                for closure in closures {
                    let row = |name| Row::ours(name, closure.size.name);
                    self.call(row(call)).await;
                    let volume = self.volume(&closure.variants[0]);
                    self.publish(row(publish), &volume).await;
                    self.unpublish(row(unpublish), &volume).await;
                }
            }
            self.scrapes(scrape, closures[0].size.name);
        }
        for other in &others {
            self.node.unpublish(other).await.unwrap();
        }
    }

    /// One of many.
    fn numbered(&self, closure: &Closure, n: usize) -> Volume {
        self.volume_at(&format!("many-{n}"), &closure.variants[0])
    }

    /// With a target of its own, where others are present meanwhile.
    fn volume_at(&self, target: &str, path: &str) -> Volume {
        Volume { target: self.lab.target(target), ..self.volume(path) }
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
