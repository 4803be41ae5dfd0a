//! Taking a volume off its target: only what is ours, all of it, and the volume's files after it.

use std::os::fd::OwnedFd;

use super::identity::{is_overlay, place};
use super::idmapped::{is_own_idmapped, unmount_idmapped};
use super::layer::{MARKER, SHOWN};
use super::paths::Target;
use super::real::RealMounts;
use super::sys::Place;
use super::views::MAX_STACKED;
use super::volumes::{SOURCE, foreign, is_overlay_of};
use super::{MountError, Mounts as _, mountinfo};
use crate::crash::crash_point;
use crate::model::{StorePath, TargetPath, VolumeId};

impl RealMounts {
    pub(super) fn detach_volume(
        &self,
        target: &TargetPath,
        volume: &VolumeId,
    ) -> Result<(), MountError> {
        let _target = self.lock_target(target);
        match self.roots.open(target) {
            // Without its parent the target is gone, and a mount would have kept it.
            Err(MountError::NoParent { .. }) => {}
            opened => self.clear(&opened?, volume)?,
        }
        self.refuse_second_target(target, volume)?;
        self.remove_files(volume)?;
        crash_point("detach-files-removed");
        Ok(())
    }

    /// Unmounts what is ours at the target, and removes its directory.
    fn clear(&self, at: &Target<'_>, volume: &VolumeId) -> Result<(), MountError> {
        for _ in 0..=MAX_STACKED {
            let Some(dir) = at.directory()? else {
                return Ok(());
            };
            let here = place(&dir, at.path.as_path())?;
            if !here.is_mount_root {
                drop(dir);
                at.remove_dir()?;
                crash_point("detach-dir-removed");
                return Ok(());
            }
            if let Some(ours) = is_own_idmapped(&dir, here, at.path, volume)? {
                if !ours {
                    break;
                }
                unmount_idmapped(at, dir)?;
                crash_point("detach-unmounted");
                continue;
            }
            if !self.is_any_of_ours(&dir, here, at.path, volume)? {
                break;
            }
            drop(dir); // it would keep the mount busy
            at.unmount()?;
            crash_point("detach-unmounted");
        }
        Err(foreign(at.path))
    }

    /// `detach` is not told the view, so every one may be compared, some microseconds each. First comes the one that
    /// such a mount showed before, then that of the closure that the mount names.
    fn is_any_of_ours(
        &self,
        dir: &OwnedFd,
        here: Place,
        target: &TargetPath,
        volume: &VolumeId,
    ) -> Result<bool, MountError> {
        let record = self.record_of(volume)?;
        if record.is_some_and(|r| is_overlay_of(&r, dir, here, target)) {
            return Ok(true);
        }
        let before = self.detached.get(&here.dev).map(|view| view.clone());
        if let Some(view) = before
            && self.shows_view(dir, here, &view, target)?
        {
            return Ok(true);
        }
        let mut views = self.list_views()?;
        if let Some(root) = named_root(dir) {
            views.sort_by_key(|view| !view.as_str().starts_with(root.hash()));
        }
        for view in views {
            if self.shows_view(dir, here, &view, target)? {
                self.detached.insert(here.dev, view);
                return Ok(true);
            }
        }
        is_named_ours(here, volume)
    }
}

/// The closure that a view's overlay names in its marker. Only a hint: whose mount it is, the
/// marker's identity says.
fn named_root(dir: &OwnedFd) -> Option<StorePath> {
    if !is_overlay(dir).ok()? {
        return None; // a look-up in a foreign network file system could hang
    }
    let root = rustix::fs::readlinkat(dir, MARKER, Vec::new()).ok()?;
    StorePath::parse(root.to_str().ok()?).ok()
}

/// The last resort, for a mount whose files somebody removed: a pod that can't be torn down for ever
/// helps nobody, and the mount table still says who made it.
fn is_named_ours(here: Place, volume: &VolumeId) -> Result<bool, MountError> {
    let writable = format!("{SOURCE}{volume}");
    let found = mountinfo::read()?.into_iter().find(|m| m.id == here.mount_id);
    Ok(found.is_some_and(|mount| {
        mount.source == writable.as_bytes()
            || (mount.source.starts_with(b"nix-csi:") && mount.root.ends_with(SHOWN))
    }))
}
