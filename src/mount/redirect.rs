//! The redirect view's layer: one entry per store path and nothing per file. A directory is an
//! empty one whose xattr sends the overlay to the store's; see design.md, "Views".

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, XattrFlags, fsetxattr, ftruncate};
use rustix::io::Errno;

use super::copy;
use super::failure::{failed, failed_in};
use super::fsopen::{self, Overlay};
use super::layer::{Filled, StoreDir};
use super::{MountError, ViewId};
use crate::model::{Closure, StorePath};

const REDIRECT: &str = "trusted.overlay.redirect";
const METACOPY: &str = "trusted.overlay.metacopy";

/// Fills `to`, the layer's `v/store`.
pub(super) fn fill(
    store: &StoreDir,
    to: BorrowedFd<'_>,
    to_path: &Path,
    closure: &Closure,
) -> Result<Filled, MountError> {
    let mut filled = Filled::with_capacity(closure.paths.len());
    for info in &closure.paths {
        let found = store.look_up(&info.path)?;
        let name = info.path.base_name();
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {
                directory(to, name, &found).map_err(failed_in("make", to_path, name))?;
            }
            FileType::RegularFile => {
                filled.metacopy |=
                    file(store.fd(), to, name, &found).map_err(failed_in("make", to_path, name))?;
            }
            FileType::Symlink => {
                copy::symlink(store.fd(), to, name, &found)
                    .map_err(failed_in("make", to_path, name))?;
            }
            _ => return Err(store.unsupported(&info.path)),
        }
        filled.push(&info.path, &found);
    }
    Ok(filled)
}

fn directory(to: BorrowedFd<'_>, name: &str, of: &Stat) -> Result<(), Errno> {
    rustix::fs::mkdirat(to, name, Mode::from_raw_mode(of.st_mode))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(to, name, flags, Mode::empty())?;
    redirect(fd.as_fd(), name)?;
    copy::take_metadata(&fd, of)
}

/// Absolute, which means from the root of the layers below: the store's directory.
fn redirect(fd: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let mut goal = Vec::with_capacity(name.len() + 1);
    goal.push(b'/');
    goal.extend_from_slice(name.as_bytes());
    fsetxattr(fd, REDIRECT, &goal, XattrFlags::CREATE)
}

/// The store's own inode where a link is possible; else (`true`) an empty file of the same
/// metadata whose content the overlay takes from the store: another file system or another mount
/// of the same one, or an inode that has all the links it may have.
fn file(store: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &str, of: &Stat) -> Result<bool, Errno> {
    match rustix::fs::linkat(store, name, to, name, AtFlags::empty()) {
        Ok(()) => Ok(false),
        Err(Errno::XDEV | Errno::MLINK | Errno::PERM) => {
            let fd = copy::new_file(to, name)?;
            ftruncate(&fd, u64::try_from(of.st_size).unwrap_or(0))?;
            redirect(fd.as_fd(), name)?;
            fsetxattr(&fd, METACOPY, &[], XattrFlags::CREATE)?;
            copy::take_metadata(&fd, of)?;
            Ok(true)
        }
        Err(e) => Err(e),
    }
}

/// A detached mount of the layer over the store.
pub(super) fn mount(
    id: &ViewId,
    layer: &Path,
    store: &Path,
    metacopy: bool,
) -> Result<OwnedFd, MountError> {
    fsopen::overlay(&Overlay {
        source: &source(id),
        layers: &[layer, store],
        upper: None,
        options: &[
            ("redirect_dir", Some("follow")),
            // Only for layers of our own making, and only where they need it.
            ("metacopy", Some(if metacopy { "on" } else { "off" })),
            // Inode numbers stay the layers' own: `identity` compares them.
            ("xino", Some("off")),
            ("ro", None),
        ],
    })
}

const SOURCE: &str = "nix-csi:";

/// What mount tables show as the device of a view and of its binds.
pub(super) fn source(id: &ViewId) -> String {
    format!("{SOURCE}{}", id.as_str())
}

/// The view of a mount with this device.
pub(super) fn view_of(source: &[u8]) -> Option<ViewId> {
    ViewId::parse(std::str::from_utf8(source).ok()?.strip_prefix(SOURCE)?)
}

/// Whether the directory that `path` became shows the store's: a redirect that is not followed is
/// an empty directory, and no error.
pub(super) fn shows_same(
    store: &StoreDir,
    view_store: &Path,
    path: &StorePath,
) -> Result<bool, MountError> {
    let shown = view_store.join(path.base_name());
    let names = |dir: &Path| -> Result<Vec<_>, MountError> {
        let mut names = std::fs::read_dir(dir)
            .and_then(|entries| {
                entries.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>()
            })
            .map_err(failed("list", dir))?;
        names.sort();
        Ok(names)
    };
    Ok(names(&shown)? == names(&store.path().join(path.base_name()))?)
}
