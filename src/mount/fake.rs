//! [`Mounts`] as a table in memory, for tests of everything above: errors on demand, calls that
//! can be held, and hooks for what the outside world does.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Attached, MountError, Mounts, Presentation, Usage, View, ViewId, WriteDatabase};
use crate::model::{Access, Closure, StorePath, TargetPath, VolumeId};

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
    Volume(ViewId, VolumeId, Access),
    Foreign,
}

impl Shown {
    /// A read-only volume is no more than its view.
    fn is(&self, view: &ViewId, volume: &VolumeId, access: Access) -> bool {
        match self {
            Self::Volume(v, id, a) => {
                v == view && *a == access && (access == Access::ReadOnly || id == volume)
            }
            Self::Foreign => false,
        }
    }
}

#[derive(Debug, Default)]
struct State {
    views: BTreeMap<ViewId, (View, Closure)>,
    shown: BTreeMap<TargetPath, Shown>,
    files: BTreeMap<VolumeId, ViewId>,
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
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Mounts for FakeMounts {
    fn presentation(&self) -> Presentation {
        Presentation::Redirect
    }

    /// `database` is given the path of a directory that doesn't exist.
    fn create_view(
        &self,
        id: &ViewId,
        closure: &Closure,
        database: WriteDatabase<'_>,
    ) -> Result<View, MountError> {
        let mut state = self.enter(Op::CreateView)?;
        let lost = closure.paths.iter().find(|p| state.missing.contains(&p.path));
        if let Some(lost) = lost {
            let path = lost.path.clone();
            return Err(MountError::MissingPath { path });
        }
        database(&Path::new("/fake").join(id.as_str()).join("var/nix/db"))?;
        let view = View {
            id: id.clone(),
            root: closure.root.clone(),
            paths: closure.paths.len(),
            nar_size: closure.nar_size(),
            presentation: Presentation::Redirect,
        };
        let made = (view.clone(), closure.clone());
        state.views.insert(id.clone(), made);
        Ok(view)
    }

    fn reopen_view(&self, id: &ViewId) -> Result<Option<View>, MountError> {
        let state = self.enter(Op::ReopenView)?;
        Ok(state.views.get(id).map(|(view, _)| view.clone()))
    }

    fn remove_view(&self, id: &ViewId) -> Result<(), MountError> {
        let mut state = self.enter(Op::RemoveView)?;
        let shows = |s: &Shown| matches!(s, Shown::Volume(view, ..) if view == id);
        if state.shown.values().any(shows) || state.files.values().any(|view| view == id) {
            return Err(MountError::ViewInUse { id: id.clone() });
        }
        state.views.remove(id);
        Ok(())
    }

    fn list_views(&self) -> Result<Vec<ViewId>, MountError> {
        Ok(self.enter(Op::ListViews)?.views.keys().cloned().collect())
    }

    fn replaced_paths(&self, id: &ViewId) -> Result<Vec<StorePath>, MountError> {
        let state = self.enter(Op::ReplacedPaths)?;
        let (_, closure) = state.view(id)?;
        let paths = closure.paths.iter().map(|p| &p.path);
        let changed = |p: &&StorePath| state.replaced.contains(*p) || state.missing.contains(*p);
        Ok(paths.filter(changed).cloned().collect())
    }

    fn attach(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        access: Access,
    ) -> Result<(), MountError> {
        let mut state = self.enter(Op::Attach)?;
        state.allow(target)?;
        if let Some(shown) = state.shown.get(target) {
            return if shown.is(view, volume, access) {
                Ok(())
            } else {
                Err(MountError::Foreign { target: target.clone() })
            };
        }
        state.view(view)?;
        if access == Access::Writable {
            state.files.insert(volume.clone(), view.clone());
        }
        let wanted = Shown::Volume(view.clone(), volume.clone(), access);
        state.shown.insert(target.clone(), wanted);
        Ok(())
    }

    fn detach(&self, target: &TargetPath, volume: &VolumeId) -> Result<(), MountError> {
        let mut state = self.enter(Op::Detach)?;
        state.allow(target)?;
        if state.shown.get(target) == Some(&Shown::Foreign) {
            let target = target.clone();
            return Err(MountError::Foreign { target });
        }
        if state.shown.contains_key(target) && state.busy.contains(target) {
            let target = target.clone();
            return Err(MountError::Busy { target });
        }
        state.shown.remove(target);
        state.files.remove(volume);
        Ok(())
    }

    fn attached(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        access: Access,
    ) -> Result<Attached, MountError> {
        let state = self.enter(Op::Attached)?;
        state.allow(target)?;
        Ok(match state.shown.get(target) {
            None => Attached::Nothing,
            Some(shown) if shown.is(view, volume, access) => Attached::Ours,
            Some(_) => Attached::Foreign,
        })
    }

    fn writable_usage(&self, volume: &VolumeId) -> Result<Usage, MountError> {
        let state = self.enter(Op::WritableUsage)?;
        if !state.files.contains_key(volume) {
            return Err(not_found(volume.as_str()));
        }
        Ok(Usage {
            bytes_total: 1 << 30,
            bytes_used: 1 << 20,
            bytes_available: (1 << 30) - (1 << 20),
            inodes_total: 1000,
            inodes_used: 10,
            inodes_available: 990,
        })
    }

    fn list_volume_files(&self) -> Result<Vec<VolumeId>, MountError> {
        let state = self.enter(Op::ListVolumeFiles)?;
        Ok(state.files.keys().cloned().collect())
    }
}
