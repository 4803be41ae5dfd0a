//! Records and GC roots of closures in the queue: `<state-dir>/uploads/<hash>.json` and
//! `<roots>/uploads/<hash>`.
//!
//! A root is there before its record and goes after it, so a killed driver leaves no record of what
//! a collector may take. Everything happens one after the other, in the order in which it was asked
//! for, across restarts of the actor: a record that is saved can't come after its removal.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::record::{MAX, Moment, Record, Unreadable, file_name};
use crate::actors::core::blocking;
use crate::actors::gc::report::{Leaked, remove_leaked};
use crate::model::StorePath;
use crate::nix::{Nix, NixError, sweep_staging};
use crate::read::at_most;

#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("can't {verb} {}: {source}", .path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Nix(#[from] NixError),
    #[error("work on the queue's files ended early")]
    Ended,
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DiskError {
    let path = path.to_owned();
    move |source| DiskError::Io { verb, path, source }
}

type Job = Box<dyn FnOnce(&Files) + Send>;

/// Does what is asked for, in its order.
pub(super) struct Disk(mpsc::UnboundedSender<Job>);

impl Disk {
    /// Needs a runtime.
    pub(super) fn new(files: Files) -> Self {
        let (sender, mut jobs) = mpsc::unbounded_channel::<Job>();
        let files = Arc::new(files);
        tokio::spawn(async move {
            while let Some(job) = jobs.recv().await {
                let files = files.clone();
                // Who asked hears of a panic by the end of the reply.
                drop(blocking(move || job(&files)).await);
            }
        });
        Self(sender)
    }

    /// Asks at once; the future waits for the answer. Without it the work is done, too.
    pub(super) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, DiskError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, DiskError>> {
        let (reply, answer) = oneshot::channel();
        // A worker that is gone drops the reply.
        drop(self.0.send(Box::new(move |files| drop(reply.send(work(files))))));
        answer.map(|answer| answer.unwrap_or(Err(DiskError::Ended))).boxed()
    }
}

/// What a start finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Vec<Record>,
    pub(super) unreadable: Vec<Unreadable>,
}

/// All functions block.
pub(super) struct Files {
    pub(super) nix: Arc<dyn Nix>,
    pub(super) records: PathBuf,
    pub(super) roots: PathBuf,
}

impl Files {
    /// Reads all records. A record has a root, and a root a record, afterwards; a record whose path
    /// is gone is dropped.
    pub(super) fn load(&self) -> Result<Found, DiskError> {
        for dir in [&self.records, &self.roots] {
            fs::create_dir_all(dir).map_err(io_error("make", dir))?;
        }
        sweep_staging(&self.roots)?;
        let mut found = self.read_all()?;
        found.records.retain(|record| self.has_its_path(record));
        self.sweep_roots(&found)?;
        Ok(found)
    }

    fn read_all(&self) -> Result<Found, DiskError> {
        let list = || io_error("list", &self.records);
        let mut found = Found::default();
        for entry in fs::read_dir(&self.records).map_err(list())? {
            let path = entry.map_err(list())?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                // Its rename never happened.
                drop(fs::remove_file(&path));
                continue;
            }
            let text = at_most(&path, MAX).map_err(|e| e.to_string());
            match text.and_then(|text| Record::parse(&text, &path)) {
                Ok(record) => found.records.push(record),
                Err(reason) => {
                    tracing::warn!(record = %path.display(), reason, "an upload's record is unreadable; it is kept");
                    found.unreadable.push(Unreadable { path, reason });
                }
            }
        }
        found.records.sort_by_key(|record| record.queued_at);
        Ok(found)
    }

    /// Whether the path is still there; it has its root then. What can't be told is kept.
    fn has_its_path(&self, record: &Record) -> bool {
        let (path, root) = (&record.path, self.root(&record.path));
        // A root that stood all the while needs no collector's lock.
        let stood = fs::read_link(&root).is_ok_and(|target| target == Path::new(&path.to_string()))
            && fs::symlink_metadata(self.nix.store_dir().join(path.base_name())).is_ok();
        if stood {
            return true;
        }
        match self.nix.root_if_valid(path, &root) {
            Ok(true) => true,
            Ok(false) => {
                tracing::info!(%path, "not uploaded: it is not in the store any more");
                self.remove(path).unwrap_or_else(|error| tracing::warn!(%error, "a record stays"));
                false
            }
            Err(error) => {
                tracing::warn!(%path, %error, "an upload waits without a root");
                true
            }
        }
    }

    /// Roots of nothing, which a killed driver leaves. That of an unreadable record stays.
    fn sweep_roots(&self, found: &Found) -> Result<Vec<Leaked>, DiskError> {
        let list = || io_error("list", &self.roots);
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_owned();
        let records = found.records.iter().map(|record| record.path.hash().into());
        let wanted: HashSet<_> =
            records.chain(found.unreadable.iter().map(|u| stem(&u.path))).collect();
        let mut leaked = Vec::new();
        for entry in fs::read_dir(&self.roots).map_err(list())? {
            let path = entry.map_err(list())?.path();
            if path.is_symlink() && !wanted.contains(&stem(&path)) {
                leaked.extend(remove_leaked(path));
            }
        }
        Ok(leaked)
    }

    /// The same beside uploads: between two jobs each root has a record.
    pub(super) fn sweep(&self) -> Result<Vec<Leaked>, DiskError> {
        self.sweep_roots(&self.read_all()?)
    }

    /// Makes the root and the record; `None`: the path is not valid. A record that is there stays.
    pub(super) fn keep(&self, path: &StorePath, now: Moment) -> Result<Option<Record>, DiskError> {
        let root = self.root(path);
        if !self.nix.root_if_valid(path, &root)? {
            return Ok(None);
        }
        let file = self.record(path);
        let found = at_most(&file, MAX);
        match found.map(|text| Record::parse(&text, &file)) {
            Ok(Ok(record)) => return Ok(Some(record)),
            Ok(Err(_)) => set_aside(&file)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => set_aside(&file)?,
            Err(e) => return Err(io_error("read", &file)(e)),
        }
        let record = Record::new(path.clone(), now);
        if let Err(error) = self.save(&record) {
            drop(fs::remove_file(&root));
            return Err(error);
        }
        Ok(Some(record))
    }

    /// Whole or not at all, also after a power failure: the queue outlives a boot.
    pub(super) fn save(&self, record: &Record) -> Result<(), DiskError> {
        let file = self.record(&record.path);
        let temporary = file.with_extension("tmp");
        let write = || {
            let text = serde_json::to_vec(record).map_err(io::Error::from)?;
            let mut written = File::create(&temporary)?;
            written.write_all(&text)?;
            written.sync_all()?;
            fs::rename(&temporary, &file)
        };
        write().map_err(|source| {
            drop(fs::remove_file(&temporary));
            io_error("write", &file)(source)
        })
    }

    /// The root is the last to go.
    pub(super) fn remove(&self, path: &StorePath) -> Result<(), DiskError> {
        for file in [self.record(path), self.root(path)] {
            match fs::remove_file(&file) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &file)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn record(&self, path: &StorePath) -> PathBuf {
        self.records.join(file_name(path))
    }

    fn root(&self, path: &StorePath) -> PathBuf {
        self.roots.join(path.hash())
    }
}
fn set_aside(file: &Path) -> Result<(), DiskError> {
    fs::rename(file, file.with_extension("unreadable")).map_err(io_error("set aside", file))
}
