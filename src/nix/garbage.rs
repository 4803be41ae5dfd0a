//! What a garbage collector needs of a store, as the trait [`Garbage`].

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use futures::future::BoxFuture;
use rustix::fs::{FlockOperation, StatVfsMountFlags, flock, statvfs};

use crate::model::{StoreGraph, StorePath};

use super::NixError;
use super::error::io_error;
use super::gc_lock::try_lock;

/// In the store's state directory; [`Sole`] holds it.
const LOCK: &str = "nix-csi-gc.lock";
/// Bytes of notes that are read.
const MOST_NOTED: u64 = 16 << 20;

/// Something that holds a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// A link, a file of `/proc`, or what Nix writes in braces for what has no name.
    pub name: String,
    pub path: StorePath,
}

/// What became of paths that were to be deleted; one that was not valid any more is in neither.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Deletion {
    pub deleted: Vec<StorePath>,
    /// Something holds them.
    pub alive: Vec<StorePath>,
}

/// A file system. Free is what is available to unprivileged processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Space {
    pub bytes: u64,
    pub free_bytes: u64,
    /// Zero: the file system has no such bound.
    pub inodes: u64,
    pub free_inodes: u64,
}

impl Space {
    /// Blocking.
    pub(super) fn of(dir: &Path) -> Result<Self, NixError> {
        let stat = statvfs(dir).map_err(|err| io_error("look at", dir, err.into()))?;
        Ok(Self {
            bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            free_inodes: stat.f_favail,
        })
    }
}

/// All that is valid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    pub paths: u64,
    /// As archives (NAR).
    pub bytes: u64,
}

/// Blocking. Whether the file system notes when files are read; what can't be told is taken for yes.
pub fn notes_readings(dir: &Path) -> bool {
    statvfs(dir).map_or(true, |stat| !stat.f_flag.contains(StatVfsMountFlags::NOATIME))
}

/// What a deletion gives back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Freed {
    pub bytes: u64,
    pub inodes: u64,
    /// Bytes that a later path gives back, and only because this one goes as well: of files of both.
    pub helps: u64,
}

impl Freed {
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes + other.bytes,
            inodes: self.inodes + other.inodes,
            helps: self.helps + other.helps,
        }
    }

    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            inodes: self.inodes - before.inodes,
            helps: self.helps - before.helps,
        }
    }
}

/// The right to collect, given back by dropping it. Its file notes what is being deleted, for who comes
/// after a kill: what Nix has begun to delete it no longer knows.
#[derive(Debug)]
pub struct Sole {
    file: File,
    path: PathBuf,
}

impl Sole {
    /// `None`: another process, or another part of this one, has it.
    pub(super) fn take(state_dir: &Path) -> Result<Option<Self>, NixError> {
        let path = state_dir.join(LOCK);
        let file = try_lock(&path, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file.map(|file| Self { file, path }))
    }

    /// Blocking. Notes that these are being deleted. On a full disk nothing is noted: what a kill then leaves
    /// half deleted is worth less than the space.
    pub fn begin(&self, paths: &[StorePath]) -> Result<(), NixError> {
        if paths.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = paths.iter().map(ToString::to_string).collect();
        let lines = lines.join("\n") + "\n";
        let write = || -> io::Result<()> {
            let mut file = &self.file;
            file.seek(SeekFrom::End(0))?;
            file.write_all(lines.as_bytes())
        };
        match write() {
            Err(err) if matches!(err.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(note = %self.path.display(), %err, "a deletion is not noted");
                Ok(())
            }
            written => written.map_err(|err| io_error("write", &self.path, err)),
        }
    }

    /// Blocking. All deletions that were begun have ended.
    pub fn end(&self) -> Result<(), NixError> {
        self.file.set_len(0).map_err(|err| io_error("empty", &self.path, err))
    }

    /// Blocking. What was begun and has not ended, also by another process.
    pub fn begun(&self) -> Result<Vec<StorePath>, NixError> {
        let mut text = Vec::new();
        let mut read = || -> io::Result<()> {
            let mut file = &self.file;
            file.seek(SeekFrom::Start(0))?;
            file.take(MOST_NOTED).read_to_end(&mut text).map(drop)
        };
        read().map_err(|err| io_error("read", &self.path, err))?;
        // A last line may be cut off.
        Ok(String::from_utf8_lossy(&text)
            .lines()
            .filter_map(|l| StorePath::parse(l).ok())
            .collect())
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        // Not by closing it alone: a child that is just being started has it open until its exec.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// What a garbage collector needs of a store. Blocking functions are marked. Futures end what they
/// started when they are dropped.
pub trait Garbage: Send + Sync + 'static {
    /// All that holds paths at this moment: links, processes, clients.
    fn roots(&self) -> BoxFuture<'static, Result<Vec<Root>, NixError>>;

    /// Blocking. All that is valid, from one moment.
    fn graph(&self) -> Result<StoreGraph, NixError>;

    /// Deletes those of `paths` that nothing holds, through Nix, which looks for itself. `paths`:
    /// referrers before what they refer to. What was not valid any more is neither.
    fn delete(&self, paths: Vec<StorePath>) -> BoxFuture<'static, Result<Deletion, NixError>>;

    /// Blocking. Those of `paths` that lie in the store and are not valid: half deleted, if their deletion
    /// was begun.
    fn remains(&self, paths: &[StorePath]) -> Result<Vec<StorePath>, NixError>;

    /// Deletes one of them through Nix, unless somebody is making it; whether it is gone.
    fn delete_remains(&self, path: StorePath) -> BoxFuture<'static, Result<bool, NixError>>;

    /// Blocking. What the store holds.
    fn stock(&self) -> Result<Stock, NixError>;

    /// Blocking. What the store's file system has.
    fn space(&self) -> Result<Space, NixError>;

    /// Blocking. What deleting each of `paths`, in this order, gives back to the file system: an inode
    /// that has a link elsewhere gives nothing, one whose links all lie in `paths` gives its blocks with
    /// the last of them. The `.links` directory of an optimised store counts as nothing, since Nix
    /// removes it there as well.
    fn frees(&self, paths: &[StorePath]) -> Result<Vec<Freed>, NixError>;

    /// Blocking. Seconds since 1970 when each was read last, as far as its own top directory or file
    /// says (atime); `None`: not known.
    fn last_read(&self, paths: &[StorePath]) -> Vec<Option<u64>>;

    /// Blocking. The right to collect: one collector of ours per store. `None`: another one is at work.
    /// Given back by dropping it, and by the kernel when the process dies.
    fn sole(&self) -> Result<Option<Sole>, NixError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A full disk is what a collection is for.
    #[test]
    fn a_full_disk_keeps_no_deletion_from_its_beginning() {
        let file = File::options().read(true).write(true).open("/dev/full").unwrap();
        let sole = Sole { file, path: "/dev/full".into() };
        let path = StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x").unwrap();
        sole.begin(&[path]).unwrap();
    }
}
