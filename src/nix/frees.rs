//! What deleting trees of the store gives back to its file system, and when they were read. Looking must
//! not count as reading: directories are opened with O_NOATIME.

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, open, openat, statat};
use rustix::io::Errno;

use crate::model::StorePath;

use super::error::io_error;
use super::{Freed, NixError};

/// In an optimised store, one link of each file of which there is more than one.
const LINKS: &CStr = c".links";
/// Directories in each other, each of which is held open.
const MAX_DEPTH: usize = 200;
/// Inodes with several links that are remembered, in some 100 bytes each; more give nothing.
const MAX_SHARED: usize = 1 << 18;
/// Of what they are remembered for.
const MAX_OF: usize = 1 << 20;
/// Bytes, of `st_blocks`.
const BLOCK: u64 = 512;

/// See [`super::Garbage::frees`].
pub(super) fn frees(store_dir: &Path, paths: &[StorePath]) -> Result<Vec<Freed>, NixError> {
    let failed = |path: &Path, err: Errno| io_error("look at", path, io::Error::from(err));
    let store = open(store_dir, flags(), Mode::empty()).map_err(|err| failed(store_dir, err))?;
    let dev = rustix::fs::fstat(&store).map_err(|err| failed(store_dir, err))?.st_dev;
    let mut walk =
        Walk { dev, shared: HashMap::new(), of: 0, freed: vec![Freed::default(); paths.len()] };
    for (at, path) in paths.iter().enumerate() {
        let name = path.base_name();
        walk.tree(&store, name, at).map_err(|err| failed(&store_dir.join(name), err))?;
    }
    walk.settle(&store).map_err(|err| failed(&store_dir.join(".links"), err))?;
    Ok(walk.freed)
}

/// See [`super::Garbage::last_read`].
pub(super) fn last_read(store_dir: &Path, paths: &[StorePath]) -> Vec<Option<u64>> {
    let read = |path: &StorePath| {
        let file = store_dir.join(path.base_name());
        let stat = statat(CWD, &file, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        u64::try_from(stat.st_atime).ok()
    };
    paths.iter().map(read).collect()
}

/// An inode with several links.
struct Shared {
    /// How many of them were not met yet.
    left: usize,
    bytes: u64,
    /// Whose links were met, in the order of paths.
    of: Vec<u32>,
}

struct Walk {
    /// Of the store: what is mounted into it is nobody's to delete.
    dev: u64,
    shared: HashMap<(u64, u64), Shared>,
    /// Entries of all `of`.
    of: usize,
    freed: Vec<Freed>,
}

impl Walk {
    /// Counts all below `name` for the path with the number `at`.
    fn tree(&mut self, store: &OwnedFd, name: &str, at: usize) -> Result<(), Errno> {
        let mut open: Vec<Dir> = Vec::new();
        open.extend(self.entry(store, name, at)?);
        while let Some(dir) = open.last_mut() {
            let Some(entry) = dir.read() else {
                open.pop();
                continue;
            };
            let Some(entry) = unless_gone(entry)? else { continue };
            if [c".", c".."].contains(&entry.file_name()) {
                continue;
            }
            let below = self.entry(dir.fd()?, entry.file_name(), at)?;
            if open.len() < MAX_DEPTH {
                open.extend(below);
            }
        }
        Ok(())
    }

    /// Counts one; gives it, opened, if it is a directory.
    fn entry(
        &mut self,
        dir: impl AsFd,
        name: impl rustix::path::Arg + Copy,
        at: usize,
    ) -> Result<Option<Dir>, Errno> {
        let Some(stat) = unless_gone(statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW))? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            self.file(&stat, at);
            return Ok(None);
        }
        if stat.st_dev != self.dev {
            return Ok(None);
        }
        self.give(at, bytes(&stat));
        let opened = match openat(&dir, name, flags() | OFlags::NOATIME, Mode::empty()) {
            // Another user's.
            Err(Errno::PERM) => openat(&dir, name, flags(), Mode::empty()),
            opened => opened,
        };
        unless_gone(opened)?.map(Dir::new).transpose()
    }

    fn file(&mut self, stat: &Stat, at: usize) {
        let links = usize::try_from(stat.st_nlink).unwrap_or(usize::MAX);
        if links < 2 {
            return self.give(at, bytes(stat));
        }
        let key = (stat.st_dev, stat.st_ino);
        if !self.shared.contains_key(&key) && self.shared.len() >= MAX_SHARED {
            return;
        }
        let new = || Shared { left: links, bytes: bytes(stat), of: Vec::new() };
        let shared = self.shared.entry(key).or_insert_with(new);
        shared.left = shared.left.saturating_sub(1);
        let at = u32::try_from(at).unwrap_or(u32::MAX);
        if shared.of.last() != Some(&at) {
            if self.of < MAX_OF || shared.of.is_empty() {
                self.of += 1;
                shared.of.push(at);
            } else if let Some(last) = shared.of.last_mut() {
                *last = at; // one helper less is known
            }
        }
        if shared.left == 0
            && let Some(whole) = self.shared.remove(&key)
        {
            self.give_whole(&whole);
        }
    }

    /// Those of which only the link in `.links` is left.
    fn settle(&mut self, store: &OwnedFd) -> Result<(), Errno> {
        self.shared.retain(|_, shared| shared.left == 1);
        if self.shared.is_empty() {
            return Ok(());
        }
        let Some(links) = unless_gone(openat(store, LINKS, flags(), Mode::empty()))? else {
            return Ok(());
        };
        for entry in Dir::new(links)? {
            let ino = entry?.ino();
            if let Some(whole) = self.shared.remove(&(self.dev, ino)) {
                self.give_whole(&whole);
            }
        }
        Ok(())
    }

    /// The last of those that have it gives it.
    fn give_whole(&mut self, whole: &Shared) {
        let Some((last, others)) = whole.of.split_last() else { return };
        self.give(*last as usize, whole.bytes);
        for other in others {
            self.freed[*other as usize].helps += whole.bytes;
        }
    }

    fn give(&mut self, at: usize, bytes: u64) {
        let freed = &mut self.freed[at];
        freed.bytes += bytes;
        freed.inodes += 1;
    }
}

fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn bytes(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK
}

/// `None` for what is not there any more, or is something else by now.
fn unless_gone<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => Ok(None),
        Err(err) => Err(err),
    }
}
