//! A store at one moment: what it holds, what holds that, and when it was used.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::actors::gc::plan::{Dead, dead};
use crate::actors::gc::used::{Uses, uses_in, wall_clock};
use crate::actors::gc::{USED, add_readings};
use crate::cli::Failure;
use crate::config::GcArgs;
use crate::model::{Index, StoreGraph, StorePath};
use crate::nix::{Config, Freed, Garbage, RealNix};

/// Beside [`StoreGraph`], everything in its numbers.
pub(super) struct Store {
    pub(super) nix: Arc<RealNix>,
    pub(super) graph: StoreGraph,
    /// Names of roots by what they hold.
    pub(super) holders: BTreeMap<StorePath, Vec<String>>,
    pub(super) reached: Vec<Option<Index>>,
    uses: Uses,
    now: u64,
}

/// Works on the store itself, and ends with us.
pub(super) fn open(args: &GcArgs) -> RealNix {
    let guard = Some("/proc/self/exe".into());
    RealNix::open(Config {
        program: args.programs.nix.clone(),
        search_path: args.programs.search_path.clone(),
        guard,
        ..Config::new("/")
    })
}

/// What a node or a cache knows, if there is one here.
pub(super) fn uses(state_dir: &Path) -> Result<Uses, Failure> {
    let file = state_dir.join(USED);
    let uses = uses_in(&file)
        .map_err(|error| Failure(format!("can't read {}: {error}", file.display())))?;
    Ok(uses.unwrap_or_default())
}

impl Store {
    pub(super) async fn read(args: &GcArgs) -> Result<Self, Failure> {
        let nix = Arc::new(open(args));
        // First what holds, then what there is: what came in between is held by nobody, and is young.
        let roots = nix.roots().await?;
        let (read, state_dir, atime) = (nix.clone(), args.state_dir.clone(), args.atime);
        let now = wall_clock()();
        let (graph, reached, uses, roots) = tokio::task::spawn_blocking(move || {
            let graph = read.graph()?;
            let reached = graph.reached(roots.iter().filter_map(|root| graph.find(&root.path)));
            let mut uses = uses(&state_dir)?;
            if atime {
                add_readings(&mut uses, (&graph, &reached), &*read, now);
            }
            Ok::<_, Failure>((graph, reached, uses, roots))
        })
        .await??;
        let mut holders: BTreeMap<StorePath, Vec<String>> = BTreeMap::new();
        for root in roots {
            holders.entry(root.path).or_default().push(root.name);
        }
        Ok(Self { nix, graph, holders, reached, uses, now })
    }

    pub(super) fn dead(&self) -> Vec<Dead> {
        dead(&self.graph, &self.reached, &self.uses)
    }

    pub(super) fn age(&self, dead: &Dead) -> Duration {
        // Whole seconds: a second is a long time for a clock that was set.
        Duration::from_secs(self.now.saturating_sub(dead.used))
    }

    /// Blocking. What deleting them in this order gives back.
    pub(super) fn frees(&self, all: &[Dead]) -> Result<Vec<Freed>, Failure> {
        let paths: Vec<_> =
            all.iter().map(|dead| self.graph.path(dead.path).path.clone()).collect();
        Ok(self.nix.frees(&paths)?)
    }
}
