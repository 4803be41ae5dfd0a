//! Volumes at their targets. A read-only one is a bind of the view's `mnt/v`, or of its parts (see
//! `idmapped`); a writable one is an
//! overlay of its own over it, with its files in `<volumes>/<id>/` (`upper/`, `work/`, and
//! `volume.json`, written before the mount is shown).

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;

use rustix::io::Errno;

use super::failure::failed;
use super::identity::{ViewIdentity, is_overlay, place};
use super::layer::{self, SHOWN};
use super::metadata::{self, VolumeRecord};
use super::paths::Target;
use super::real::RealMounts;
use super::sys::{self, Overlay, Place};
use super::views::gone;
use super::{Attached, MountError, Mounts as _, Usage, ViewId};
use crate::crash::crash_point;
use crate::model::{Shape, TargetPath, VolumeId};

const UPPER: &str = "upper";
const WORK: &str = "work";
/// In mount tables, the device of mounts that are one volume's own is this and the volume's id.
pub(super) const SOURCE: &str = "nix-csi-volume:";

impl RealMounts {
    pub(super) fn attach_volume(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<(), MountError> {
        let attached = self.attach_once(view, target, volume, shape);
        if attached.is_ok() || sys::is_mount_root(&self.mnt(view))? {
            return attached;
        }
        // Somebody unmounted the view itself; its layer is still there.
        let alone = self.view_lock(view).write().unwrap_or_else(PoisonError::into_inner);
        if self.reopen(view)?.is_none() {
            return attached;
        }
        drop(alone);
        self.attach_once(view, target, volume, shape)
    }

    fn attach_once(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<(), MountError> {
        let _target = self.lock_target(target);
        let removal = self.view_lock(view).read();
        let _removal = removal.unwrap_or_else(PoisonError::into_inner);
        let at = self.roots.open(target)?;
        let made = at.make_dir()?;
        crash_point("attach-dir-made");
        self.attach_at(&at, view, volume, shape).inspect_err(|_| {
            if made && let Err(e) = at.remove_dir() {
                tracing::warn!(%target, error = %e, "directory of a failed mount stays");
            }
        })
    }

    fn attach_at(
        &self,
        at: &Target<'_>,
        view: &ViewId,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<(), MountError> {
        let path = at.path.as_path();
        let dir = at
            .directory()?
            .ok_or_else(|| failed("open", path)(std::io::Error::from(Errno::NOENT)))?;
        let here = place(&dir, path)?;
        if here.is_mount_root {
            match self.whose(&dir, here, view, at.path, volume, shape)? {
                Attached::Ours => return Ok(()),
                Attached::Foreign => return Err(foreign(at.path)),
                Attached::Nothing => {} // half-made
            }
        }
        if shape == Shape::Idmapped {
            return self.attach_idmapped(at, &dir, here, view, volume);
        }
        if shape == Shape::ReadOnly {
            let tree = sys::clone_read_only(&self.mnt(view).join(SHOWN))?;
            sys::show(&tree, dir.as_fd(), path)?;
            crash_point("attach-mounted");
            return Ok(());
        }
        self.refuse_second_target(at.path, volume)?;
        self.attach_writable(at.path, &dir, view, volume).inspect_err(|_| {
            if let Err(e) = self.remove_files(volume) {
                tracing::warn!(%volume, error = %e, "files of a failed mount stay");
            }
        })
    }

    fn attach_writable(
        &self,
        target: &TargetPath,
        dir: &OwnedFd,
        view: &ViewId,
        volume: &VolumeId,
    ) -> Result<(), MountError> {
        // A volatile upper can't be mounted a second time.
        self.remove_files(volume)?;
        let files = self.volume_dir(volume);
        for dir in [&files, &files.join(UPPER), &files.join(WORK)] {
            layer::make_dir(dir)?;
        }
        crash_point("attach-files-made");
        let tree = self.writable_overlay(view, volume)?;
        let root = place(&tree, target.as_path())?;
        let record = VolumeRecord {
            version: metadata::version(),
            boot_id: self.boot_id.clone(),
            view: view.clone(),
            target: target.clone(),
            dev: root.dev,
            ino: root.ino,
        };
        metadata::write(&files, &record)?;
        crash_point("attach-record-written");
        sys::show(&tree, dir.as_fd(), target.as_path())?;
        crash_point("attach-mounted");
        Ok(())
    }

    /// Detached, over the view as it is mounted: over the view's own layers every path would also be
    /// there without its redirect, and be stale after a copy-up.
    fn writable_overlay(&self, view: &ViewId, volume: &VolumeId) -> Result<OwnedFd, MountError> {
        let files = self.volume_dir(volume);
        sys::overlay(&Overlay {
            source: &format!("{SOURCE}{volume}"),
            layers: &[&self.mnt(view).join(SHOWN)],
            upper: Some((&files.join(UPPER), &files.join(WORK))),
            options: &[
                // Nobody needs the upper after a crash of the node; unmounting it must not sync.
                ("volatile", None),
                ("index", Some("off")),
                ("metacopy", Some("off")),
                ("xino", Some("off")),
            ],
        })
    }

    pub(super) fn look_at(
        &self,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<Attached, MountError> {
        let at = match self.roots.open(target) {
            Err(MountError::NoParent { .. }) => return Ok(Attached::Nothing),
            other => other?,
        };
        let Some(dir) = at.directory()? else {
            return Ok(Attached::Nothing);
        };
        let here = place(&dir, target.as_path())?;
        if !here.is_mount_root {
            return Ok(Attached::Nothing);
        }
        self.whose(&dir, here, view, target, volume, shape)
    }

    /// Of a mount's root.
    fn whose(
        &self,
        dir: &OwnedFd,
        here: Place,
        view: &ViewId,
        target: &TargetPath,
        volume: &VolumeId,
        shape: Shape,
    ) -> Result<Attached, MountError> {
        let ours = match shape {
            Shape::ReadOnly => self.shows_view(dir, here, view, target)?,
            Shape::Idmapped => return self.whose_idmapped(dir, here, view, target, volume),
            Shape::Writable => self
                .record_of(volume)?
                .is_some_and(|r| r.view == *view && is_overlay_of(&r, dir, here, target)),
        };
        Ok(if ours { Attached::Ours } else { Attached::Foreign })
    }

    pub(super) fn shows_view(
        &self,
        dir: &OwnedFd,
        here: Place,
        view: &ViewId,
        target: &TargetPath,
    ) -> Result<bool, MountError> {
        ViewIdentity::of(&self.view_dir(view))?.map_or(Ok(false), |identity| {
            identity.is_shown_at(dir.as_fd(), here).map_err(failed("look at", target.as_path()))
        })
    }

    pub(super) fn record_of(&self, volume: &VolumeId) -> Result<Option<VolumeRecord>, MountError> {
        metadata::read(&self.volume_dir(volume), &self.boot_id)
    }

    /// The volume's files are those of a live mount elsewhere: they must stay.
    pub(super) fn refuse_second_target(
        &self,
        target: &TargetPath,
        volume: &VolumeId,
    ) -> Result<(), MountError> {
        let Some(record) = self.record_of(volume)?.filter(|r| r.target != *target) else {
            return Ok(());
        };
        match self.look_at(&record.view, &record.target, volume, Shape::Writable)? {
            Attached::Ours => Err(MountError::Busy { target: record.target }),
            Attached::Nothing | Attached::Foreign => Ok(()),
        }
    }

    pub(super) fn remove_files(&self, volume: &VolumeId) -> Result<(), MountError> {
        let dir = self.volume_dir(volume);
        // The record goes last: without it the rest would be a stranger's.
        for part in [UPPER, WORK] {
            let part = dir.join(part);
            gone(fs::remove_dir_all(&part)).map_err(failed("remove", &part))?;
        }
        gone(fs::remove_dir_all(&dir)).map_err(failed("remove", &dir))
    }

    pub(super) fn clear_unused_files(&self) -> Result<(), MountError> {
        for volume in self.list_volume_files()? {
            match self.record_of(&volume) {
                Ok(None) => {
                    // One that can't be removed is no reason for the others to wait.
                    if let Err(error) = self.remove_files(&volume) {
                        tracing::error!(%volume, %error, "an unused writable layer stays");
                    }
                }
                Ok(Some(_)) => {}
                Err(error) => {
                    tracing::error!(%volume, %error, "unreadable writable layer, kept");
                }
            }
        }
        Ok(())
    }

    pub(super) fn usage(&self, volume: &VolumeId) -> Result<Usage, MountError> {
        let upper = self.volume_dir(volume).join(UPPER);
        let s =
            rustix::fs::statvfs(&upper).map_err(failed("look at the file system of", &upper))?;
        Ok(Usage {
            bytes_total: s.f_blocks * s.f_frsize,
            bytes_used: s.f_blocks.saturating_sub(s.f_bfree) * s.f_frsize,
            bytes_available: s.f_bavail * s.f_frsize,
            inodes_total: s.f_files,
            inodes_used: s.f_files.saturating_sub(s.f_ffree),
            inodes_available: s.f_favail,
        })
    }
}

pub(super) fn is_overlay_of(
    record: &VolumeRecord,
    dir: &OwnedFd,
    here: Place,
    target: &TargetPath,
) -> bool {
    (record.dev, record.ino) == (here.dev, here.ino)
        && record.target == *target
        && is_overlay(dir).unwrap_or(false)
}

pub(super) fn foreign(target: &TargetPath) -> MountError {
    MountError::Foreign { target: target.clone() }
}
