//! The fallback where an overlay can't serve: a tree of hard links, one per file. It shares inodes
//! with the store, so it is only ever shown read-only.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::copy;
use super::failure::{failed, io_error};
use super::layer::{Filled, StoreDir};
use super::{MountError, sys};
use crate::lock::lock;
use crate::model::Closure;

/// Links are waits for the journal; more threads than this gain nothing on one disk.
const MAX_THREADS: usize = 4;
const DIR: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Fills `to`, the layer's `v/store`.
pub(super) fn fill(
    store: &StoreDir,
    to: BorrowedFd<'_>,
    to_path: &Path,
    closure: &Closure,
) -> Result<Filled, MountError> {
    let mut filled = Filled::with_capacity(closure.paths.len());
    let mut found = Vec::with_capacity(closure.paths.len());
    for info in &closure.paths {
        let stat = store.look_up(&info.path)?;
        filled.push(&info.path, &stat);
        found.push((info.path.base_name(), stat));
    }
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let work = || {
        while let Some((name, stat)) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            let at = to_path.join(name);
            let name = std::ffi::CString::new(*name).unwrap_or_default();
            if let Err(e) = entry(store.fd(), to, &name, stat, &at) {
                next.store(found.len(), Ordering::Relaxed);
                *lock(&failure) = Some(e);
            }
        }
    };
    let threads = std::thread::available_parallelism()
        .map_or(1, |n| n.get().min(MAX_THREADS))
        .min(found.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(e) => Err(e),
        None => Ok(filled),
    }
}

/// One entry and everything below it.
fn entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    of: &Stat,
    at: &Path,
) -> Result<(), MountError> {
    match FileType::from_raw_mode(of.st_mode) {
        FileType::Directory => directory(from, to, name, of, at),
        kind @ (FileType::RegularFile | FileType::Symlink) => {
            match rustix::fs::linkat(from, name, to, name, AtFlags::empty()) {
                Ok(()) => Ok(()),
                // Another file system or mount, or an inode with all the links it may have.
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM) if kind == FileType::Symlink => {
                    copy::symlink(from, to, name, of).map_err(failed("make the link", at))
                }
                Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => {
                    copy::file(from, to, name, of).map_err(failed("copy to", at))
                }
                Err(e) => Err(failed("link", at)(e)),
            }
        }
        _ => Err(io_error(
            "link",
            at.to_owned(),
            Errno::INVAL.into(),
            Some("not a directory, regular file or symlink".to_owned()),
        )),
    }
}

fn directory(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &std::ffi::CStr,
    of: &Stat,
    at: &Path,
) -> Result<(), MountError> {
    rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))
        .map_err(failed("make the directory", at))?;
    let open = |dir| rustix::fs::openat(dir, name, DIR, Mode::empty()).map_err(failed("open", at));
    let (from, to): (OwnedFd, OwnedFd) = (open(from)?, open(to)?);
    for child in Dir::read_from(&from).map_err(failed("list the original of", at))? {
        let child = child.map_err(failed("list the original of", at))?;
        let name = child.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let below = child_path(at, name);
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("look up the original of", &below))?;
        entry(from.as_fd(), to.as_fd(), name, &stat, &below)?;
    }
    // Last: each entry made in it changed its time, and the mode may forbid writing.
    copy::take_metadata(&to, of).map_err(failed("set the metadata of", at))
}

fn child_path(at: &Path, name: &std::ffi::CStr) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    at.join(std::ffi::OsStr::from_bytes(name.to_bytes()))
}

/// A detached read-only bind of the layer.
pub(super) fn mount(layer: &Path) -> Result<OwnedFd, MountError> {
    sys::clone_read_only(layer)
}
