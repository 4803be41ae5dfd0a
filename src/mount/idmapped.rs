//! Volumes of pods with a user namespace. Their runtime gives the mount at the target an idmap, and
//! only that one; the kernel idmaps no overlay. So there is a small read-only tmpfs at the target, and
//! the view's parts are bound on its directories.
//!
//! The tmpfs is complete when it is shown, and the parts follow: a process that dies half-way leaves
//! a tmpfs with the volume's name, to which the next `attach` adds what is missing.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::failure::{failed, mount_failed};
use super::identity::{Part, ViewIdentity, is_tmpfs, place};
use super::layer::{PARTS, SHOWN};
use super::mountinfo::{self, Mount};
use super::paths::{Target, open_no_links};
use super::real::RealMounts;
use super::redirect;
use super::sys::{self, Place};
use super::volumes::SOURCE;
use super::{Attached, MountError, ViewId};
use crate::crash::crash_point;
use crate::model::{TargetPath, VolumeId};

/// Of the tmpfs: nothing is ever written to it but the parts' directories.
const OPTIONS: [(&str, &str); 3] = [("size", "4k"), ("nr_inodes", "16"), ("mode", "0755")];
/// Mounted over: nobody sees it.
const DIR_MODE: Mode = Mode::from_raw_mode(0o755);

impl RealMounts {
    /// `dir` is the target's directory, or the root of a half-made volume there.
    pub(super) fn attach_idmapped(
        &self,
        at: &Target<'_>,
        dir: &OwnedFd,
        here: Place,
        view: &ViewId,
        volume: &VolumeId,
    ) -> Result<(), MountError> {
        let path = at.path.as_path();
        // Whatever is wrong with the view is found before anything is shown.
        let shown = self.mnt(view).join(SHOWN);
        let trees = [
            sys::clone_read_only(&shown.join(PARTS[0]))?,
            sys::clone_read_only(&shown.join(PARTS[1]))?,
        ];
        if here.is_mount_root {
            show_parts(dir, path, &trees)?;
        } else {
            let top = make_top(volume).map_err(mount_failed("make a tmpfs for", path))?;
            sys::show(&top, dir.as_fd(), path)?;
            crash_point("attach-top-shown");
            if let Err(error) = show_parts(&top, path, &trees) {
                if let Err(e) = unmount_idmapped(at, top) {
                    tracing::warn!(%volume, error = %e, "a half-made volume stays");
                }
                return Err(error);
            }
        }
        crash_point("attach-mounted");
        Ok(())
    }

    /// `Nothing` is a half-made one of this volume and view.
    pub(super) fn whose_idmapped(
        &self,
        dir: &OwnedFd,
        here: Place,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
    ) -> Result<Attached, MountError> {
        let Some(parts) = parts(dir, target.as_path())? else {
            return Ok(Attached::Foreign);
        };
        if parts.iter().all(|part| part.place.is_mount_root) {
            let dir = self.view_dir(view);
            let ours = ViewIdentity::of(&dir)?.map_or(Ok(false), |identity| {
                identity.is_shown_in(&dir, &parts).map_err(failed("look at", target.as_path()))
            })?;
            return Ok(if ours { Attached::Ours } else { Attached::Foreign });
        }
        let ours = is_named(here, &parts, volume, |shown| shown == view)?;
        Ok(if ours == Some(true) { Attached::Nothing } else { Attached::Foreign })
    }
}

/// Whether the volume's own tmpfs at a target, whole or half-made, has nothing but binds of views on
/// it; `None` if something else is there.
pub(super) fn is_own_idmapped(
    dir: &OwnedFd,
    here: Place,
    target: &TargetPath,
    volume: &VolumeId,
) -> Result<Option<bool>, MountError> {
    parts(dir, target.as_path())?.map_or(Ok(None), |parts| is_named(here, &parts, volume, |_| true))
}

/// Takes off the parts and then the tmpfs, whose root `dir` is. If one of them is busy, those that
/// are off already are put back.
pub(super) fn unmount_idmapped(at: &Target<'_>, dir: OwnedFd) -> Result<(), MountError> {
    let mut taken = Vec::new();
    let off = unmount_parts(at.path, &dir, &mut taken);
    drop(dir); // it would keep the tmpfs busy
    let off = off.and_then(|()| at.unmount());
    if off.is_err()
        && let Some(dir) = at.directory()?
    {
        for (part, tree) in taken {
            // What stays off, the next attempt does not miss: it is half-made then.
            if let Err(error) = show_part(&dir, at.path.as_path(), part, &tree) {
                tracing::warn!(target = %at.path, part, %error, "a part of a busy volume is off");
            }
        }
    }
    off
}

/// Leaves in `taken` what makes it undone.
fn unmount_parts(
    target: &TargetPath,
    dir: &OwnedFd,
    taken: &mut Vec<(&'static str, OwnedFd)>,
) -> Result<(), MountError> {
    // Through the descriptor nobody can swap what is on the way.
    let through = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    for part in PARTS {
        let path = through.join(part);
        if !sys::is_mount_root(&path)? {
            continue;
        }
        let again = sys::clone_read_only(&path)?;
        match sys::unmount(&path) {
            Ok(()) => taken.push((part, again)),
            Err(Errno::BUSY) => return Err(MountError::Busy { target: target.clone() }),
            Err(e) => return Err(failed("unmount", &target.as_path().join(part))(e)),
        }
        crash_point("detach-part-unmounted");
    }
    Ok(())
}

fn show_parts(top: &OwnedFd, path: &Path, trees: &[OwnedFd; 2]) -> Result<(), MountError> {
    for (part, tree) in PARTS.into_iter().zip(trees) {
        show_part(top, path, part, tree)?;
        crash_point("attach-part-shown");
    }
    Ok(())
}

/// Unless something is on its directory already.
fn show_part(top: &OwnedFd, path: &Path, part: &str, tree: &OwnedFd) -> Result<(), MountError> {
    let path = path.join(part);
    let dir = open_no_links(top, Path::new(part), ResolveFlags::BENEATH)
        .map_err(failed("open", &path))?;
    if place(&dir, &path)?.is_mount_root { Ok(()) } else { sys::show(tree, dir.as_fd(), &path) }
}

/// A detached tmpfs with the parts' directories. It is read-only before it is shown: what spreads to
/// other mount namespaces is a copy that later changes don't reach.
fn make_top(volume: &VolumeId) -> Result<OwnedFd, Errno> {
    use rustix::mount::{fsconfig_create, fsconfig_reconfigure, fsconfig_set_string};
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", format!("{SOURCE}{volume}"))?;
    for (key, value) in OPTIONS {
        fsconfig_set_string(context.as_fd(), key, value)?;
    }
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let top = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for part in PARTS {
        rustix::fs::mkdirat(&top, part, DIR_MODE)?;
    }
    // The file system too: a runtime binds it anew, and may leave out the mount's attribute.
    rustix::mount::fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_reconfigure(context.as_fd())?;
    sys::make_read_only(top.as_fd())?;
    Ok(top)
}

/// What is on the directories below a tmpfs; `None` if it is another file system or has none such.
fn parts(dir: &OwnedFd, path: &Path) -> Result<Option<[Part; 2]>, MountError> {
    let open = |name: &str| {
        let fd = open_no_links(dir, Path::new(name), ResolveFlags::BENEATH)?;
        let place = sys::place(&fd)?;
        Ok(Part { fd, place })
    };
    let look = || Ok([open(PARTS[0])?, open(PARTS[1])?]);
    // The type first: a look-up in a foreign network file system could hang.
    if !is_tmpfs(dir).map_err(failed("look at", path))? {
        return Ok(None);
    }
    match look() {
        Ok(parts) => Ok(Some(parts)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(failed("look below", path)(e)),
    }
}

/// Whether the mount table says of each mount on the tmpfs that it is of a view that `is_expected`;
/// `None` if the tmpfs is not the volume's.
fn is_named(
    here: Place,
    parts: &[Part; 2],
    volume: &VolumeId,
    is_expected: impl Fn(&ViewId) -> bool,
) -> Result<Option<bool>, MountError> {
    let mounts = mountinfo::read()?;
    let find = |place: Place| mounts.iter().find(|mount| mount.id == place.mount_id);
    let source = format!("{SOURCE}{volume}");
    if find(here).is_none_or(|mount| mount.source != source.as_bytes()) {
        return Ok(None);
    }
    let mut on_it = parts.iter().zip(PARTS).filter(|(part, _)| part.place.is_mount_root);
    Ok(Some(on_it.all(|(part, name)| {
        let view = find(part.place).and_then(|mount| view_of(mount, name));
        view.is_some_and(|view| is_expected(&view))
    })))
}

/// The view of whose part the mount is a bind.
fn view_of(mount: &Mount, part: &str) -> Option<ViewId> {
    if !mount.root.ends_with(Path::new(SHOWN).join(part)) {
        return None;
    }
    if let Some(view) = redirect::view_of(&mount.source) {
        return Some(view);
    }
    // A tree of hard links: `…/<view>/layer/v/<part>`.
    ViewId::parse(mount.root.ancestors().nth(3)?.file_name()?.to_str()?)
}
