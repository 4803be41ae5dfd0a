//! Tells whose mount is at a target, in a few system calls however many mounts there are, and
//! without memory: a restarted driver may have mounted a view a second time while volumes still
//! show the first mount, so device numbers alone don't tell.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Stat};
use rustix::io::Errno;

use super::MountError;
use super::failure::failed;
use super::layer::{LAYER, MARKER, PARTS, SHOWN};
use super::sys::{self, Place};

/// `OVERLAYFS_SUPER_MAGIC` of linux/magic.h.
const OVERLAYFS: u64 = 0x794c_7630;
/// `TMPFS_MAGIC`.
const TMPFS: u64 = 0x0102_1994;

/// What only one view's layer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ViewIdentity {
    /// Device and inode of the layer's `v`: a bind of a hard-link tree shows them unchanged.
    shown: (u64, u64),
    /// Inode and change time of its marker: an overlay shows them unchanged, under a device number
    /// of its own. Nobody can set a change time.
    marker: (u64, i64, u64),
}

impl ViewIdentity {
    /// Of the view in `dir`; `None` if it has no layer.
    pub(super) fn of(dir: &Path) -> Result<Option<Self>, MountError> {
        let shown = dir.join(LAYER).join(SHOWN);
        let read = || {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let root = rustix::fs::statat(CWD, &shown, flags)?;
            let marker = rustix::fs::statat(CWD, shown.join(MARKER), flags)?;
            Ok(Self { shown: (root.st_dev, root.st_ino), marker: identify(&marker) })
        };
        match read() {
            Ok(identity) => Ok(Some(identity)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(e) => Err(failed("look at", &shown)(e)),
        }
    }

    /// Whether the mount root `at` is a bind of this view.
    pub(super) fn is_shown_at(&self, at: BorrowedFd<'_>, place: Place) -> Result<bool, Errno> {
        if (place.dev, place.ino) == self.shown {
            return Ok(true);
        }
        // The type first: a look-up in a foreign network file system could hang.
        if !is_overlay(at)? {
            return Ok(false);
        }
        Ok(self.is_marked(at, MARKER)? && is_read_only(at)?)
    }

    /// Whether the mount roots `store` and `var` are binds of the parts of this view, which is in
    /// `dir`.
    pub(super) fn is_shown_in(&self, dir: &Path, [store, var]: &[Part; 2]) -> Result<bool, Errno> {
        let shown = dir.join(LAYER).join(SHOWN);
        let look = |name| rustix::fs::statat(CWD, shown.join(name), AtFlags::SYMLINK_NOFOLLOW);
        let is =
            |part: &Part, own: Stat| (part.place.dev, part.place.ino) == (own.st_dev, own.st_ino);
        if is(store, look(PARTS[0])?) && is(var, look(PARTS[1])?) {
            return Ok(true);
        }
        // `store` has no marker of its own; an overlay's device number is of that overlay only.
        if store.place.dev != var.place.dev || !is_overlay(&store.fd)? || !is_overlay(&var.fd)? {
            return Ok(false);
        }
        let marker = MARKER.trim_start_matches("var/");
        let marked = self.is_marked(var.fd.as_fd(), marker)?;
        Ok(marked && is_read_only(store.fd.as_fd())? && is_read_only(var.fd.as_fd())?)
    }

    fn is_marked(&self, at: BorrowedFd<'_>, marker: &str) -> Result<bool, Errno> {
        match rustix::fs::statat(at, marker, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT) {
            Ok(marker) => Ok(identify(&marker) == self.marker),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// What is on one of the directories of a volume that shows its view in parts.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) fd: OwnedFd,
    pub(super) place: Place,
}

fn identify(marker: &Stat) -> (u64, i64, u64) {
    (marker.st_ino, marker.st_ctime, marker.st_ctime_nsec)
}

pub(super) fn is_overlay(at: impl AsFd) -> Result<bool, Errno> {
    is_of_type(at, OVERLAYFS)
}

pub(super) fn is_tmpfs(at: impl AsFd) -> Result<bool, Errno> {
    is_of_type(at, TMPFS)
}

fn is_of_type(at: impl AsFd, magic: u64) -> Result<bool, Errno> {
    #[expect(clippy::cast_sign_loss, reason = "a magic number, whose type differs by architecture")]
    rustix::fs::fstatfs(at).map(|s| s.f_type as u64 == magic)
}

/// A writable volume over the view shows the view's marker too.
fn is_read_only(at: BorrowedFd<'_>) -> Result<bool, Errno> {
    rustix::fs::fstatvfs(at).map(|s| s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

/// [`sys::place`] with the path in its error.
pub(super) fn place(fd: impl AsFd, path: &Path) -> Result<Place, MountError> {
    sys::place(fd).map_err(failed("look at", path))
}
