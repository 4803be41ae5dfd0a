//! Collections of the stand-in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{Call, FakeNix, Fault, Gate, State, reach};
use crate::model::{Registered, StoreGraph, StorePath};
use crate::nix::error::io_error;
use crate::nix::{Deletion, Freed, Garbage, NixError, Root, Sole, Space, Stock, frees, remains};

/// Bytes, of every path.
pub const NAR_SIZE: u64 = 100_000;
/// Bytes, of every deletion for which nothing else was set.
const FREED: u64 = 1000;

/// What collectors meet, and what there was of them.
#[derive(Default)]
pub(super) struct Collector {
    roots_dirs: Vec<PathBuf>,
    roots: Vec<Root>,
    gates: HashMap<Call, watch::Receiver<bool>>,
    calls: HashMap<Call, usize>,
    /// Paths of each deletion, in the order of their beginnings.
    deletions: Vec<Vec<StorePath>>,
    registered: HashMap<StorePath, u64>,
    space: Option<Space>,
    freed: HashMap<StorePath, Freed>,
    read: HashMap<StorePath, u64>,
    stuck: HashMap<StorePath, Fault<NixError>>,
}

impl Collector {
    pub(super) fn count(&mut self, call: Call) {
        *self.calls.entry(call).or_default() += 1;
    }
}

impl FakeNix {
    /// Links anywhere below these are roots.
    pub fn set_roots_dirs(&self, dirs: &[&Path]) {
        self.state().collector.roots_dirs = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    }

    /// Roots beside the links, such as those of processes.
    pub fn set_roots(&self, roots: Vec<Root>) {
        self.state().collector.roots = roots;
    }

    /// Seconds since 1970; what is not set is as old as can be.
    pub fn set_registered(&self, path: &StorePath, at: u64) {
        self.state().collector.registered.insert(path.clone(), at);
    }

    /// Instead of the file system's. A deletion changes it.
    pub fn set_space(&self, space: Space) {
        self.state().collector.space = Some(space);
    }

    /// What a path's deletion gives back, instead of what its files have.
    pub fn set_freed(&self, path: &StorePath, freed: Freed) {
        self.state().collector.freed.insert(path.clone(), freed);
    }

    /// Seconds since 1970, instead of what the file system says.
    pub fn set_last_read(&self, path: &StorePath, at: u64) {
        self.state().collector.read.insert(path.clone(), at);
    }

    /// From now on a deletion with this path among others fails.
    pub fn fail_delete_of(
        &self,
        path: &StorePath,
        fault: impl Fn() -> NixError + Send + Sync + 'static,
    ) {
        self.state().collector.stuck.insert(path.clone(), Arc::new(fault));
    }

    /// Calls of `Roots` or `Delete` wait until the gate is released.
    pub fn hold_call(&self, call: Call) -> Gate {
        let (sender, receiver) = watch::channel(false);
        self.state().collector.gates.insert(call, receiver);
        Gate(sender)
    }

    /// How often it was called, faults and all.
    pub fn called(&self, call: Call) -> usize {
        self.state().collector.calls.get(&call).copied().unwrap_or(0)
    }

    /// Paths of each deletion that was begun.
    pub fn deletions(&self) -> Vec<Vec<StorePath>> {
        self.state().collector.deletions.clone()
    }

    /// Deletes what no symlink below `roots_dirs` keeps alive, as a collector would; gives what went.
    pub fn collect_garbage(&self, roots_dirs: &[&Path]) -> Result<Vec<StorePath>, NixError> {
        let mut state = self.state();
        let links = links(roots_dirs)?;
        let alive = alive(&state.valid, &links);
        let dead: Vec<_> =
            state.valid.keys().filter(|path| !alive.contains(path)).cloned().collect();
        dead.iter().try_for_each(|path| self.remove(&mut state, path))?;
        Ok(dead)
    }

    fn remove(&self, state: &mut State, path: &StorePath) -> Result<(), NixError> {
        state.valid.remove(path);
        let file = self.store_dir.join(path.base_name());
        let removed =
            if file.is_dir() { fs::remove_dir_all(&file) } else { fs::remove_file(&file) };
        match removed {
            // Some are valid without a file.
            Err(err) if err.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &file, err))
            }
            _ => Ok(()),
        }
    }

    async fn begin(&self, call: Call) -> Result<(), NixError> {
        let gate = self.state().collector.gates.get(&call).cloned();
        let checked = self.check(call);
        if let Some(mut gate) = gate {
            // A dropped gate lets everybody through.
            let _ = gate.wait_for(|open| *open).await;
        }
        checked
    }

    fn delete_now(&self, paths: Vec<StorePath>) -> Result<Deletion, NixError> {
        let mut state = self.state();
        if let Some(fault) = paths.iter().find_map(|path| state.collector.stuck.get(path)) {
            return Err(fault());
        }
        let alive = alive(&state.valid, &all_roots(&state)?);
        let mut deletion = Deletion::default();
        for path in paths {
            if !state.valid.contains_key(&path) {
                continue;
            }
            // Those of `paths` that refer to it came before.
            let mut others = state.valid.iter().filter(|(other, _)| **other != path);
            if alive.contains(&path) || others.any(|(_, references)| references.contains(&path)) {
                deletion.alive.push(path);
                continue;
            }
            self.remove(&mut state, &path)?;
            let freed = state.collector.freed.get(&path).copied();
            let freed = freed.unwrap_or(Freed { bytes: FREED, inodes: 1, helps: 0 });
            if let Some(space) = &mut state.collector.space {
                space.free_bytes += freed.bytes;
                space.free_inodes += freed.inodes;
            }
            deletion.deleted.push(path);
        }
        Ok(deletion)
    }
}

impl Garbage for FakeNix {
    fn roots(&self) -> BoxFuture<'static, Result<Vec<Root>, NixError>> {
        let nix = self.clone();
        async move {
            nix.begin(Call::Roots).await?;
            all_roots(&nix.state())
        }
        .boxed()
    }

    fn graph(&self) -> Result<StoreGraph, NixError> {
        self.check(Call::Graph)?;
        let state = self.state();
        let at = |path| state.collector.registered.get(path).copied().unwrap_or(0);
        let numbers: HashMap<_, _> = state.valid.keys().zip(0..).collect();
        let paths = state.valid.keys();
        let paths =
            paths.map(|path| Registered { path: path.clone(), at: at(path), nar_size: NAR_SIZE });
        let pairs = |(from, references): (_, &Vec<StorePath>)| {
            let to = references.iter().filter_map(|path| numbers.get(path));
            to.map(|to| (numbers[from], *to)).collect::<Vec<_>>()
        };
        let references = state.valid.iter().flat_map(pairs);
        Ok(StoreGraph::new(paths.collect(), references.collect()))
    }

    fn delete(&self, paths: Vec<StorePath>) -> BoxFuture<'static, Result<Deletion, NixError>> {
        let nix = self.clone();
        async move {
            nix.state().collector.deletions.push(paths.clone());
            nix.begin(Call::Delete).await?;
            nix.delete_now(paths)
        }
        .boxed()
    }

    fn remains(&self, paths: &[StorePath]) -> Result<Vec<StorePath>, NixError> {
        remains::remains(&self.store_dir, paths, |path| Ok(self.is_valid(path)))
    }

    fn delete_remains(&self, path: StorePath) -> BoxFuture<'static, Result<bool, NixError>> {
        let nix = self.clone();
        async move {
            nix.begin(Call::Delete).await?;
            let file = nix.store_dir.join(path.base_name());
            fs::remove_dir_all(&file).map_err(|err| io_error("delete", &file, err))?;
            Ok(true)
        }
        .boxed()
    }

    fn stock(&self) -> Result<Stock, NixError> {
        let paths = self.state().valid.len() as u64;
        Ok(Stock { paths, bytes: paths * NAR_SIZE })
    }

    fn space(&self) -> Result<Space, NixError> {
        self.check(Call::Space)?;
        let set = self.state().collector.space;
        set.map_or_else(|| Space::of(&self.store_dir), Ok)
    }

    fn frees(&self, paths: &[StorePath]) -> Result<Vec<Freed>, NixError> {
        self.check(Call::Frees)?;
        let mut found = frees::frees(&self.store_dir, paths)?;
        let state = self.state();
        for (path, freed) in paths.iter().zip(&mut found) {
            *freed = state.collector.freed.get(path).copied().unwrap_or(*freed);
        }
        Ok(found)
    }

    fn last_read(&self, paths: &[StorePath]) -> Vec<Option<u64>> {
        let found = frees::last_read(&self.store_dir, paths);
        let state = self.state();
        let set = |path| state.collector.read.get(path).copied();
        paths.iter().zip(found).map(|(path, found)| set(path).or(found)).collect()
    }

    fn sole(&self) -> Result<Option<Sole>, NixError> {
        self.check(Call::Sole)?;
        // The store's directory was made in it.
        Sole::take(self.store_dir.parent().unwrap_or(&self.store_dir))
    }
}

fn all_roots(state: &State) -> Result<Vec<Root>, NixError> {
    let mut roots = links(&state.collector.roots_dirs)?;
    roots.extend(state.collector.roots.iter().cloned());
    Ok(roots)
}

fn alive(valid: &BTreeMap<StorePath, Vec<StorePath>>, roots: &[Root]) -> BTreeSet<StorePath> {
    roots.iter().flat_map(|root| reach(valid, &root.path)).collect()
}

/// The links below directories; there need not be any.
fn links(dirs: &[impl AsRef<Path>]) -> Result<Vec<Root>, NixError> {
    let mut todo: Vec<PathBuf> = dirs.iter().map(|dir| dir.as_ref().to_owned()).collect();
    let mut found = Vec::new();
    while let Some(dir) = todo.pop() {
        let list = |err| io_error("list", &dir, err);
        let entries = match fs::read_dir(&dir) {
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(list)?,
        };
        for entry in entries {
            let entry = entry.map_err(list)?;
            if entry.file_type().map_err(list)?.is_dir() {
                todo.push(entry.path());
                continue;
            }
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if let Ok(path) = StorePath::parse(&target.to_string_lossy()) {
                found.push(Root { name: entry.path().display().to_string(), path });
            }
        }
    }
    Ok(found)
}
