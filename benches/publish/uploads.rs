//! The uploaders of a large cluster, and one cache that is away for ten minutes: how many sessions it is asked for
//! meanwhile, how many begin in the busiest second after it is back, and how long until all that waited has arrived.
//! The uploaders are the driver's own, with records on disk; the cache counts. Time passes at once where nobody works.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix_csi::actors::core::{End, supervise};
use nix_csi::actors::gc::used::{Used, Uses, wall_clock};
use nix_csi::actors::uploads::{CacheUploader, UploadsConfig};
use nix_csi::model::StorePath;
use nix_csi::nix::fake::FakeNix;
use nix_csi::nix::{PushError, PushTo};
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::report::{Report, Row};
use crate::scale::{CLUSTERS, backoff};

/// That wait on each node.
const CLOSURES: usize = 5;
const AWAY: Duration = Duration::from_mins(10);
/// In which the first uploads are tried: builds end when they end.
const SPREAD: Duration = Duration::from_mins(1);

pub fn measure(rounds: usize, report: &mut Report) {
    for _ in 0..rounds {
        for (nodes, name) in CLUSTERS {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build();
            LocalSet::new().block_on(&runtime.unwrap(), outage(nodes, name, dir.path(), report));
        }
    }
}

async fn outage(nodes: u32, name: &'static str, dir: &Path, report: &mut Report) {
    let nix = FakeNix::new(dir).unwrap();
    let waiting: Vec<_> =
        (0..CLOSURES).map(|n| nix.add_path(&format!("waits-{n}"), &[]).unwrap()).collect();
    let began = Instant::now();
    let cache = Cache { back: began + AWAY, sessions: Arc::default() };
    nix.answer_pushes({
        let cache = cache.clone();
        move |_| cache.answer()
    });
    for node in 0..nodes {
        let dir = dir.join(format!("node-{node}"));
        leave(&dir.join("uploads"), &waiting);
        sleep_until(began + SPREAD * node / nodes).await;
        start(&nix, &dir);
    }
    let wanted = nodes as usize * CLOSURES;
    while nix.pushed().len() < wanted {
        sleep(Duration::from_secs(1)).await;
    }
    let sessions = cache.sessions.lock().unwrap();
    let (away, back): (Vec<Instant>, Vec<_>) = sessions.iter().partition(|at| **at < cache.back);
    let mut seconds = BTreeMap::<u64, u32>::new();
    for at in &back {
        *seconds.entry((*at - cache.back).as_secs()).or_default() += 1;
    }
    let worst = seconds.values().max().copied().unwrap();
    let last = *back.iter().max().unwrap();
    assert_eq!(back.len(), nodes as usize, "more than one session for a node's closures");
    let add = |report: &mut Report, row, figure| {
        report.add_figure(Row::ours(row, name).in_numbers(), figure);
    };
    #[expect(clippy::cast_precision_loss, reason = "some ten thousands at most")]
    add(report, "uploads-while-away", away.len() as f64);
    add(report, "uploads-busiest-second", worst.into());
    report.add(Row::ours("uploads-arrived", name), last - cache.back);
}

/// Takes nothing before it is back.
#[derive(Clone)]
struct Cache {
    back: Instant,
    /// When each began.
    sessions: Arc<Mutex<Vec<Instant>>>,
}

impl Cache {
    fn answer(&self) -> Option<PushError> {
        let now = Instant::now();
        self.sessions.lock().unwrap().push(now);
        let away = || PushError::Temporary { cause: "nobody answers".to_owned() };
        (now < self.back).then(away)
    }
}

/// What a driver leaves when it ends with closures in its queue.
fn leave(records: &Path, paths: &[StorePath]) {
    fs::create_dir_all(records).unwrap();
    for path in paths {
        let record = serde_json::json!({
            "version": 1, "path": path, "queued_at": (wall_clock())(), "attempts": 0, "last_error": null,
            "next_attempt": null, "dead": false, "dead_since": null,
        });
        let file = records.join(format!("{}.json", path.hash()));
        fs::write(file, record.to_string()).unwrap();
    }
}

fn start(nix: &FakeNix, dir: &Path) {
    let config = UploadsConfig {
        to: PushTo::Store { url: "ssh-ng://cache".to_owned(), signing_key: None },
        derivations: false,
        records: dir.join("uploads"),
        roots: dir.join("roots"),
        attempts: 10,
        slots: 2,
        used: Used::fixed(Uses::default(), wall_clock()),
    };
    supervise(CacheUploader::new(Arc::new(nix.clone()), config), backoff(), |end| {
        assert_eq!(end, End::Done);
    });
}
