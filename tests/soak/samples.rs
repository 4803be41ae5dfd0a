//! How large the store and the node are.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::interval;

use crate::lab::{Lab, valid};
use crate::world::World;

const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    /// Valid ones.
    paths: u64,
    /// All of the store's directory.
    bytes: u64,
    /// Of the node's process; none while it is being started.
    rss: u64,
    files: u64,
    threads: u64,
}

pub(crate) struct Samples(Vec<Sample>);

type Of = fn(&Sample) -> u64;

/// What of a sample is bounded, and how much more is no growth.
const BOUNDED: [(&str, Of, u64); 5] = [
    ("paths", |sample| sample.paths, 100),
    ("bytes", |sample| sample.bytes, 8 << 20),
    ("rss", |sample| sample.rss, 24 << 20),
    ("files", |sample| sample.files, 30),
    ("threads", |sample| sample.threads, 10),
];

impl Samples {
    pub(crate) async fn take(world: Arc<World>) -> Self {
        let mut samples = Vec::new();
        let mut again = interval(EVERY);
        while world.goes_on() {
            again.tick().await;
            let world = world.clone();
            let sample = tokio::task::spawn_blocking(move || Sample::of(&world.lab));
            samples.push(sample.await.unwrap());
        }
        Self(samples)
    }

    /// The most of the first half, and of the second one.
    fn halves(&self, of: Of) -> (u64, u64) {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        let most = |half: &[Sample]| half.iter().map(of).max().unwrap_or_default();
        (most(first), most(second))
    }

    pub(crate) fn assert_bounded(&self) {
        for (name, of, more) in BOUNDED {
            let (first, second) = self.halves(of);
            assert!(second <= first + first / 2 + more, "{name} grow from {first} to {second}");
        }
    }
}

impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the most of the first half, and of the second:")?;
        for (name, of, _) in BOUNDED {
            let (first, second) = self.halves(of);
            write!(f, " {name} {first} {second};")?;
        }
        Ok(())
    }
}

impl Sample {
    fn of(lab: &Lab) -> Self {
        let node = node_of(lab).unwrap_or_default();
        let bytes = lab.inside(|| size(Path::new("/nix/store")));
        Self { paths: valid(lab).len() as u64, bytes, ..node }
    }
}

/// The node's process, if it is there.
fn node_of(lab: &Lab) -> Option<Sample> {
    let processes = lab.processes();
    let node = processes.iter().find(|line| line.contains("nix-csi node "))?;
    let dir = lab.proc().join(node.split(' ').next()?);
    let status = fs::read_to_string(dir.join("status")).ok()?;
    let number = |name: &str| -> Option<u64> {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
    };
    let files = fs::read_dir(dir.join("fd")).ok()?.count() as u64;
    let (rss, threads) = (number("VmRSS:")? << 10, number("Threads:")?);
    Some(Sample { rss, files, threads, ..Sample::default() })
}

/// What goes away meanwhile counts as nothing.
fn size(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}
