//! docs/performance/bench.json, which is what `make bench` found on a quiet machine, as tables.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::line::{BYTES, Line as Measured, NUMBER, OURS, SECONDS};

/// Closures by size, each with what its column is called.
const CLOSURES: [(&str, &str); 5] = [
    ("small", "5 paths"),
    ("medium", "60 paths, 5,000 files, 200 MB"),
    ("large", "300 paths, 60,000 files, 2 GB"),
    ("sparse", "300 paths, 300 files"),
    ("crowded", "2,443 paths, 375,000 small files"),
];
/// What a figure is compared with.
const CALL: &str = "grpc-call";
const CLUSTERS: [&str; 3] = ["50 nodes", "500 nodes", "5,000 nodes"];
const CALL_BESIDE: &str = "grpc-call-beside-5000";

/// Name, alternative, what a reader calls it, and what it is compared with.
type Line = (&'static str, &'static str, &'static str, Option<&'static str>);

const SHORT: [Line; 10] = [
    (CALL, OURS, "bare gRPC call to the same server", None),
    ("publish-warm", OURS, "**publish, warm**", Some(CALL)),
    ("publish-warm-beside-5000", OURS, "publish, warm, beside 5,000 volumes", Some(CALL_BESIDE)),
    ("unpublish", OURS, "unpublish", Some(CALL)),
    ("publish-warm-writable", OURS, "publish, warm, writable", Some(CALL)),
    ("publish-cold", OURS, "publish, cold: in the store, no view yet", None),
    ("publish-warm", "bind-per-path", "*one bind mount per path*", None),
    ("unpublish", "bind-per-path", "*their end*", None),
    ("publish-cold", "hard links", "*a hard link per file*", None),
    ("publish-warm", "nix, rsync, load-db", "*Nix's commands, rsync, `--load-db`, mount*", None),
];

const REST: [Line; 18] = [
    ("publish-warm", "bind", "*one bind mount and no more*", None),
    ("unpublish", "bind", "*its end*", None),
    ("publish-warm", "one fsync", "*one small file, synced*", None),
    (CALL_BESIDE, OURS, "bare gRPC call, beside 5,000 volumes", None),
    (
        "publish-warm-beside-1000",
        OURS,
        "publish, warm, beside 1,000 volumes",
        Some("grpc-call-beside-1000"),
    ),
    (
        "unpublish-beside-1000",
        OURS,
        "unpublish, beside 1,000 volumes",
        Some("grpc-call-beside-1000"),
    ),
    ("unpublish-beside-5000", OURS, "unpublish, beside 5,000 volumes", Some(CALL_BESIDE)),
    ("unpublish-writable", OURS, "unpublish, writable", Some(CALL)),
    ("publish-warm-bounded", OURS, "publish, warm, writable with a size", None),
    ("unpublish-bounded", OURS, "unpublish, writable with a size", None),
    ("publish-cold", "nix-csi, views on tmpfs", "publish, cold, views on a tmpfs", None),
    ("unpublish-cold", OURS, "unpublish of that", None),
    ("publish-cold", "EROFS image", "*an EROFS image, made and mounted*", None),
    ("publish-cold", "OCI image", "*an OCI image, unpacked and mounted by containerd*", None),
    ("unpublish-cold", "hard links", "*the hard links' end*", None),
    ("unpublish-cold", "OCI image", "*the OCI image's end*", None),
    ("unpublish", "nix, rsync, load-db", "*the copy's end*", None),
    ("scrape-beside-5000", OURS, "a scrape of the metrics, beside 5,000 volumes", None),
];

/// Of one closure: name, alternative, what a reader calls it.
const SINGLE: [(&str, &str, &str); 28] = [
    ("publish-warm-100", OURS, "publish, warm, 100 at once, each"),
    ("publish-warm-100", "one after the other", "*100 one after the other, each*"),
    ("unpublish-100", OURS, "unpublish, 100 at once, each"),
    ("publish-warm-cpu", OURS, "the driver's CPU time of a warm publish"),
    ("restart", "no volumes", "from a node's start until it is ready"),
    ("restart", OURS, "the same, with 5,000 volumes to take over"),
    ("memory-idle", OURS, "resident memory of a node without volumes"),
    ("memory-per-volume", OURS, "more of it for each volume"),
    ("memory-after-restart", OURS, "resident memory after a restart with 5,000 volumes"),
    ("stat-walk", OURS, "in a volume: looking at each file (60 paths, 5,000 files)"),
    ("stat-walk", "plain bind", "*the same in a plain bind mount of the store*"),
    ("open-and-read", OURS, "in a volume: opening and reading each file (200 MB)"),
    ("open-and-read", "plain bind", "*the same in a plain bind mount*"),
    ("exec", OURS, "in a volume: running a program with its loader and library"),
    ("exec", "plain bind", "*the same in a plain bind mount*"),
    ("publish-fetched", OURS, "publish of what a binary cache has (60 paths, 200 MB)"),
    ("publish-fetched", "nix copy", "*`nix copy` of the same*"),
    ("publish-fetched", "nix build", "*`nix build` of the same*"),
    ("publish-fetched", "the disk alone", "*as many bytes written to the disk*"),
    ("publish-known", OURS, "publish of an expression that is known"),
    ("publish-evaluated", OURS, "publish of an expression, output in the store"),
    ("publish-evaluated", "nix build", "*`nix build` of the same, as root, no jail, no mount*"),
    ("publish-built", OURS, "publish of an expression that is built"),
    ("publish-built", "nix build", "*`nix build` of the same, as root, no jail, no mount*"),
    ("publish-warm-traces", "traces sent", "publish, warm, its trace sent"),
    ("publish-warm-traces", "without traces", "*the same without a collector*"),
    ("gc-plan", OURS, "what a collection would delete of 100,000 paths"),
    ("gc-plan", "nix-store --print-dead", "*`nix-store --gc --print-dead` of the same*"),
];

/// Of a large cluster's cache: name, what a reader calls it, and how many of the reader's units one of the run's is.
type OfClusters = (&'static str, &'static str, f64);

const REGISTRY: [OfClusters; 5] = [
    ("registry-list", "the first list, until the machines file is there, ms of a processor", 1e3),
    ("registry-change", "a builder more, until it is in the file, ms of a processor", 1e3),
    (
        "registry-no-change",
        "a message that changes nothing, and a list of all for somebody, ms",
        1e3,
    ),
    ("registry-answers", "what all builders said when asked, and a list of all, ms", 1e3),
    ("machines-file", "the machines file, kB", 1e-3),
];
const UPLOADS: [OfClusters; 3] = [
    ("uploads-while-away", "sessions that are tried meanwhile", 1.0),
    ("uploads-busiest-second", "sessions that begin in the busiest second when it is back", 1.0),
    ("uploads-arrived", "until all that waited has arrived, s", 1.0),
];
const AWAY: &str = "a cache that was away for ten minutes, five closures waiting on each of";

struct Run(Vec<Measured>);

impl Run {
    fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance/bench.json");
        Self(serde_json::from_slice(&fs::read(file).unwrap()).unwrap())
    }

    fn find(&self, name: &str, alternative: &str, closure: &str) -> Option<&Measured> {
        let is =
            |m: &&Measured| m.name == name && m.alternative == alternative && m.closure == closure;
        self.0.iter().find(is)
    }

    /// A column for each closure; p50 in ms, and how many bare calls that is.
    fn by_closure(&self, lines: &[Line]) -> String {
        let titles: Vec<_> = CLOSURES.iter().map(|(_, title)| *title).collect();
        let mut text = format!(
            "| p50 in ms | {} |\n|---|{}\n",
            titles.join(" | "),
            "--:|".repeat(titles.len())
        );
        for (name, alternative, title, floor) in lines {
            write!(text, "| {title} |").unwrap();
            let mut any = false;
            for (closure, _) in CLOSURES {
                let found = self.find(name, alternative, closure);
                let ratio = found.zip(floor.and_then(|floor| self.find(floor, OURS, closure)));
                let ratio = ratio.map(|(m, floor)| format!(" ({:.1} ×)", m.p50 / floor.p50));
                any |= found.is_some();
                let figure = found.map_or("–".to_owned(), |m| figure(m.p50 * 1e3));
                write!(text, " {figure}{} |", ratio.unwrap_or_default()).unwrap();
            }
            assert!(any, "{name} by {alternative} is of no closure");
            text += "\n";
        }
        text
    }

    /// A column for each cluster; p50.
    fn by_cluster(&self, of: &str, lines: &[OfClusters]) -> String {
        let columns = CLUSTERS.join(" | ");
        let mut text = format!("| {of} | {columns} |\n|---|--:|--:|--:|\n");
        for (name, title, each) in lines {
            write!(text, "| {title} |").unwrap();
            for cluster in CLUSTERS {
                let found = self.find(name, OURS, cluster);
                let m = found.unwrap_or_else(|| panic!("{name} was not measured"));
                let whole = m.unit == NUMBER && m.p50 < 1000.0;
                let p50 = if whole { format!("{:.0}", m.p50) } else { figure(m.p50 * each) };
                write!(text, " {p50} |").unwrap();
            }
            text += "\n";
        }
        text
    }

    fn single(&self) -> String {
        let mut text = "| | p50 | p90 | p99 | | n |\n|---|--:|--:|--:|---|--:|\n".to_owned();
        for (name, alternative, title) in SINGLE {
            // Of the largest, where it was measured of several.
            let of = |m: &&Measured| m.name == name && m.alternative == alternative;
            let m = self.0.iter().filter(of).max_by(|a, b| a.p50.total_cmp(&b.p50));
            let m = m.unwrap_or_else(|| panic!("{name} by {alternative} was not measured"));
            let (unit, each) = match (m.unit.as_str(), m.p50) {
                (SECONDS, _) => ("ms", 1e3),
                (BYTES, bytes) if bytes < 1e5 => ("kB", 1e-3),
                (BYTES, _) => ("MB", 1e-6),
                (other, _) => panic!("{other} is no unit"),
            };
            let [p50, p90, p99] = [m.p50, m.p90, m.p99].map(|value| figure(value * each));
            writeln!(text, "| {title} | {p50} | {p90} | {p99} | {unit} | {} |", m.n).unwrap();
        }
        text
    }
}

fn figure(value: f64) -> String {
    match value {
        v if v >= 1000.0 => {
            let whole = format!("{v:.0}");
            let (thousands, rest) = whole.split_at(whole.len() - 3);
            format!("{thousands},{rest}")
        }
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

pub(crate) fn readme() -> String {
    Run::read().by_closure(&SHORT)
}

pub(crate) fn markdown() -> String {
    let run = Run::read();
    let tables = [
        run.by_closure(&SHORT),
        run.by_closure(&REST),
        run.single(),
        run.by_cluster("the cache's registry with", &REGISTRY),
        run.by_cluster(AWAY, &UPLOADS),
    ];
    tables.join("\n")
}
