//! [`Mounts`] as a table in memory, for tests of everything above: errors on demand, calls that
//! can be held, and hooks for what the outside world does.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{MountError, View, ViewId};
use crate::lock::lock;
use crate::model::{Closure, Shape, StorePath, TargetPath, VolumeId, VolumeSize};

mod table;

/// The trait's functions that can fail, be held and be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    CreateView,
    ReopenView,
    RemoveView,
    ListViews,
    ReplacedPaths,
    Attach,
    Detach,
    Attached,
    WritableUsage,
    ListVolumeFiles,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    Volume(ViewId, VolumeId, Shape),
    /// What a death in the middle leaves of an idmapped volume.
    HalfMade(ViewId, VolumeId),
    Foreign,
}

impl Shown {
    /// A read-only volume is no more than its view.
    fn is(&self, view: &ViewId, volume: &VolumeId, shape: Shape) -> bool {
        match self {
            Self::Volume(v, id, s) => {
                v == view && *s == shape && (!shape.is_writable() || id == volume)
            }
            Self::HalfMade(..) | Self::Foreign => false,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<ViewId, (View, Closure)>,
    shown: BTreeMap<TargetPath, Shown>,
    files: BTreeMap<VolumeId, (ViewId, Option<VolumeSize>)>,
    missing: BTreeSet<StorePath>,
    replaced: BTreeSet<StorePath>,
    busy: BTreeSet<TargetPath>,
    roots: Vec<PathBuf>,
    faults: HashMap<Op, VecDeque<MountError>>,
    calls: HashMap<Op, usize>,
    held: HashMap<Op, usize>,
    waiting: HashMap<Op, usize>,
}

/// Clones share one table: a clone is the driver after a restart.
#[derive(Debug, Clone, Default)]
pub struct FakeMounts {
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// Calls of one function wait until this is dropped.
#[derive(Debug)]
pub struct Hold {
    mounts: FakeMounts,
    op: Op,
}

impl Hold {
    /// Blocks until `n` calls wait here.
    pub fn wait_for_calls(&self, n: usize) {
        let mut state = self.mounts.state();
        while state.waiting.get(&self.op).is_none_or(|w| *w < n) {
            let changed = self.mounts.shared.1.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(held) = self.mounts.state().held.get_mut(&self.op) {
            *held -= 1;
        }
        self.mounts.shared.1.notify_all();
    }
}

impl FakeMounts {
    /// Targets anywhere are allowed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Targets below `roots` only.
    pub fn with_roots(roots: Vec<PathBuf>) -> Self {
        let fake = Self::default();
        fake.state().roots = roots;
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.0)
    }

    /// The next call of `op` that has no earlier fault before it fails so, and changes nothing.
    pub fn fail_next(&self, op: Op, error: MountError) {
        self.state().faults.entry(op).or_default().push_back(error);
    }

    /// Makes calls of `op` wait until the result is dropped.
    pub fn hold(&self, op: Op) -> Hold {
        *self.state().held.entry(op).or_default() += 1;
        let mounts = self.clone();
        Hold { mounts, op }
    }

    /// How often `op` was called, failed calls included.
    pub fn calls(&self, op: Op) -> usize {
        self.state().calls.get(&op).copied().unwrap_or(0)
    }

    /// Somebody else mounts at the target.
    pub fn mount_foreign(&self, target: &TargetPath) {
        self.state().shown.insert(target.clone(), Shown::Foreign);
    }

    /// An idmapped volume loses some of its mounts, as after a death half-way.
    pub fn lose_part(&self, target: &TargetPath) {
        let mut state = self.state();
        if let Some(Shown::Volume(view, id, Shape::Idmapped)) = state.shown.get(target).cloned() {
            state.shown.insert(target.clone(), Shown::HalfMade(view, id));
        }
    }

    /// A mount vanishes without `detach`.
    pub fn lose_mount(&self, target: &TargetPath) {
        self.state().shown.remove(target);
    }

    /// A process starts or stops using the mount.
    pub fn set_busy(&self, target: &TargetPath, busy: bool) {
        let mut state = self.state();
        if busy {
            state.busy.insert(target.clone());
        } else {
            state.busy.remove(target);
        }
    }

    /// A path vanishes from the store.
    pub fn lose_path(&self, path: &StorePath) {
        self.state().missing.insert(path.clone());
    }

    /// A path is replaced in the store.
    pub fn replace_path(&self, path: &StorePath) {
        self.state().replaced.insert(path.clone());
    }

    /// How many targets show something, foreign mounts included.
    pub fn mounted(&self) -> usize {
        self.state().shown.len()
    }

    /// Counts, waits while held, fails if told to.
    fn enter(&self, op: Op) -> Result<MutexGuard<'_, State>, MountError> {
        let mut state = self.state();
        *state.calls.entry(op).or_default() += 1;
        *state.waiting.entry(op).or_default() += 1;
        self.shared.1.notify_all();
        while state.held.get(&op).is_some_and(|held| *held > 0) {
            let changed = self.shared.1.wait(state);
            state = changed.unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(waiting) = state.waiting.get_mut(&op) {
            *waiting -= 1;
        }
        match state.faults.get_mut(&op).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }
}

impl State {
    fn allow(&self, target: &TargetPath) -> Result<(), MountError> {
        let below = |root: &PathBuf| target.parent().starts_with(root);
        if self.roots.is_empty() || self.roots.iter().any(below) {
            return Ok(());
        }
        Err(MountError::NotAllowed { target: target.clone(), allowed: format!("{:?}", self.roots) })
    }

    fn view(&self, id: &ViewId) -> Result<&(View, Closure), MountError> {
        self.views.get(id).ok_or_else(|| not_found(id.as_str()))
    }
}

fn not_found(name: &str) -> MountError {
    MountError::Io {
        verb: "open",
        path: Path::new("/fake").join(name),
        source: std::io::ErrorKind::NotFound.into(),
        detail: None,
    }
}
