//! The machine, the node that lives in it just now, and what is known of both.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix_csi::grpc::client::{Code, Status};
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use crate::lab::{Cache, Lab, Node, Volume, closure_of, names};
use crate::sources;
use crate::summary::{metrics, without_names};
use crate::tree::{self, Tree};

/// Of the node, which has no patience at all.
const SETTINGS: [&str; 22] = [
    "--gc-older-than",
    "1s",
    "--gc-grace",
    "0s",
    "--gc-interval",
    "1s",
    "--gc-look-interval",
    "1s",
    "--gc-high-watermark",
    "100",
    "--gc-low-watermark",
    "100",
    "--keep-idle",
    "500ms",
    "--verify-interval",
    "5s",
    "--refresh-after",
    "3s",
    "--failure-backoff",
    "1s",
    "--probe-memory",
    "1s",
];
/// Before a call is made again.
const PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy)]
enum Call {
    Publish,
    Unpublish,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) rounds: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) kills: AtomicU64,
    pub(crate) garbage: AtomicU64,
    pub(crate) foreign: AtomicU64,
    /// What is worth to be looked at: how often, by text.
    pub(crate) notes: Mutex<BTreeMap<String, u64>>,
    /// Of the metrics of nodes that are dead.
    pub(crate) before: Mutex<BTreeMap<String, u64>>,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

pub(crate) struct World {
    /// `None` while it is being killed and started.
    node: watch::Sender<Option<Arc<Node>>>,
    pub(crate) lab: Lab,
    pub(crate) web: Cache,
    /// So long everything goes on, and until then.
    pub(crate) time: Duration,
    pub(crate) end: Instant,
    pub(crate) counts: Counts,
    /// What a root of somebody else's holds.
    pub(crate) kept: BTreeSet<String>,
    settings: Vec<String>,
    /// What each store path holds, for ever.
    trees: Mutex<HashMap<String, Arc<Tree>>>,
    closures: Mutex<HashMap<PathBuf, Arc<Vec<String>>>>,
}

impl World {
    pub(crate) async fn new(lab: Lab, time: Duration) -> Self {
        let web = lab.cache().await;
        sources::push_flakes(&lab, &web);
        let root = lab.closure(&["--argstr", "seed", "kept"]);
        let kept = closure_of(&lab, &root);
        let (secret, public) = lab.signing_key("lab");
        let cache = format!("file://{}?compression=none", lab.path("cache").display());
        let own = ["--cache", &cache, "--trusted-public-key", &public, "--signing-key"];
        let settings = SETTINGS.iter().chain(&own).map(|word| (*word).to_owned());
        let settings = settings.chain([secret.to_str().unwrap().to_owned()]).collect();
        let mut world = Self {
            lab,
            web,
            time,
            end: Instant::now(),
            counts: Counts::default(),
            kept,
            settings,
            node: watch::Sender::new(None),
            trees: Mutex::default(),
            closures: Mutex::default(),
        };
        world.start_node().await;
        world.end = Instant::now() + time;
        world
    }

    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.end
    }

    pub(crate) async fn node(&self) -> Arc<Node> {
        let mut node = self.node.subscribe();
        let running = node.wait_for(Option::is_some).await.unwrap();
        running.clone().unwrap()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.node.borrow().is_some()
    }

    pub(crate) async fn start_node(&self) {
        let settings: Vec<_> = self.settings.iter().map(String::as_str).collect();
        let node = self.lab.node(&settings).await;
        self.node.send_replace(Some(Arc::new(node)));
    }

    /// `kill -9` in the middle of whatever it does.
    pub(crate) async fn kill_node(&self) {
        let node = self.node.send_replace(None).unwrap();
        self.remember_metrics(&node);
        node.shoot();
        // Whoever waits for an answer of it gets none.
        let mut node = Some(node);
        let mut again = interval(Duration::from_millis(10));
        while let Some(shared) = node.take() {
            match Arc::try_unwrap(shared) {
                Ok(alone) => alone.kill(),
                Err(shared) => node = Some(shared),
            }
            again.tick().await;
        }
    }

    /// Its log need not be told twice.
    pub(crate) fn forget_node(&self) {
        drop(self.node.send_replace(None));
    }

    fn remember_metrics(&self, node: &Node) {
        let mut before = self.counts.before.lock().unwrap();
        for (name, value) in metrics(node) {
            *before.entry(name).or_default() += value;
        }
    }

    pub(crate) fn note(&self, what: String) {
        *self.counts.notes.lock().unwrap().entry(what).or_default() += 1;
    }

    /// As a kubelet calls: again after what is not final, and after a node that died.
    async fn call(&self, volume: &Volume, what: Call) -> Result<(), Status> {
        let mut pause = interval(PAUSE);
        loop {
            pause.tick().await;
            let node = self.node().await;
            let answer = match what {
                Call::Publish => node.publish(volume).await,
                Call::Unpublish => node.unpublish(volume).await,
            };
            let Err(error) = answer else {
                return Ok(());
            };
            let is_dead =
                self.node.borrow().as_ref().is_none_or(|current| !Arc::ptr_eq(current, &node));
            match error.code() {
                _ if is_dead => self.note(format!("{what:?} of a node that was killed")),
                Code::Aborted | Code::Unavailable => {
                    let text = without_names(error.message());
                    self.note(format!("{what:?} again: {:?}: {text}", error.code()));
                }
                _ => return Err(error),
            }
        }
    }

    pub(crate) async fn publish(&self, volume: &Volume) -> Result<(), Status> {
        self.call(volume, Call::Publish).await
    }

    pub(crate) async fn unpublish(&self, volume: &Volume) {
        let done = self.call(volume, Call::Unpublish).await;
        done.unwrap_or_else(|error| panic!("unpublish of {}: {error}", volume.id));
        count(&self.counts.rounds);
    }

    /// Blocking. A path that was mounted before.
    pub(crate) fn earlier(&self, n: u64) -> Option<PathBuf> {
        let closures = self.closures.lock().unwrap();
        let n = usize::try_from(n).unwrap() % closures.len().max(1);
        closures.keys().nth(n).cloned()
    }

    /// Blocking. Everything that a mounted volume shows, and the store below it, is what it was when it was
    /// seen first.
    pub(crate) fn read(&self, volume: &Volume) {
        let result = volume.target.join("var/result");
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let root = self.lab.inside(|| name(&std::fs::read_link(result).unwrap()));
        let root = Path::new("/nix/store").join(root);
        let paths = self.closure_of(&root);
        let read = self.lab.inside(|| {
            let shown = volume.target.join("store");
            let expected: Vec<_> = paths.iter().map(|path| name(Path::new(path))).collect();
            if names(&shown) != expected {
                return Err(format!("it shows {:?} and not {expected:?}", names(&shown)));
            }
            for name in &expected {
                let tree = self.trees.lock().unwrap()[name].clone();
                for place in [&shown, Path::new("/nix/store")] {
                    let path = place.join(name);
                    let found = tree::read(&path)?;
                    tree::same(&tree, &found).map_err(|e| format!("{}: {e}", path.display()))?;
                }
            }
            Ok(())
        });
        read.unwrap_or_else(|error| panic!("{} at {}: {error}", volume.id, root.display()));
        count(&self.counts.reads);
    }

    /// Sorted. What is seen for the first time is what Nix has registered, and is remembered.
    fn closure_of(&self, root: &Path) -> Arc<Vec<String>> {
        if let Some(known) = self.closures.lock().unwrap().get(root) {
            return known.clone();
        }
        let paths: Vec<_> = closure_of(&self.lab, root.to_str().unwrap()).into_iter().collect();
        let all: Vec<_> = paths.iter().map(String::as_str).collect();
        self.lab.ok("nix-store", &[&["--verify-path"], &all[..]].concat());
        let trees: Vec<_> = self.lab.inside(|| {
            let read = |path: &String| Arc::new(tree::read(Path::new(path)).unwrap());
            paths.iter().map(read).collect()
        });
        let mut known = self.trees.lock().unwrap();
        for (path, tree) in paths.iter().zip(trees) {
            let name = path.strip_prefix("/nix/store/").unwrap().to_owned();
            let known = known.entry(name).or_insert_with(|| tree.clone());
            tree::same(known, &tree).unwrap_or_else(|error| panic!("{path} changed: {error}"));
        }
        drop(known);
        let paths = Arc::new(paths);
        self.closures.lock().unwrap().insert(root.to_owned(), paths.clone());
        paths
    }
}
