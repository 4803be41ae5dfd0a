//! Volumes at their targets. A read-only one is a bind of the view's `mnt/v`, or of its parts (see
//! `idmapped`); a writable one is an
//! overlay of its own over it, with files of its own (`files`).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::PoisonError;

use rustix::io::Errno;

use super::bounded;
use super::failure::failed;
use super::files::Layers;
use super::fsopen::{self, Overlay};
use super::identity::{ViewIdentity, is_overlay, place};
use super::layer::SHOWN;
use super::metadata::{self, VolumeRecord};
use super::paths::Target;
use super::real::RealMounts;
use super::sys::{self, Place};
use super::{Attached, MountError, ViewId};
use crate::crash::crash_point;
use crate::model::{Shape, TargetPath, VolumeId, VolumeSize};

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
        self.attach_writable(at.path, &dir, view, volume, shape.size()).inspect_err(|_| {
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
        size: Option<VolumeSize>,
    ) -> Result<(), MountError> {
        // A volatile upper can't be mounted a second time.
        self.remove_files(volume)?;
        let files = self.volume_dir(volume);
        let layers = Layers::make(&files, size, &self.search_path)?;
        crash_point("attach-files-made");
        let tree = self.writable_overlay(view, volume, &layers)?;
        if size.is_some() {
            bounded::hide(&files)?;
        }
        let root = place(&tree, target.as_path())?;
        let record = VolumeRecord {
            version: metadata::version(),
            boot_id: self.boot_id.clone(),
            view: view.clone(),
            target: target.clone(),
            dev: root.dev,
            ino: root.ino,
            size,
        };
        metadata::write(&files, &record)?;
        crash_point("attach-record-written");
        sys::show(&tree, dir.as_fd(), target.as_path())?;
        crash_point("attach-mounted");
        Ok(())
    }

    /// Detached, over the view as it is mounted: over the view's own layers every path would also be
    /// there without its redirect, and be stale after a copy-up.
    fn writable_overlay(
        &self,
        view: &ViewId,
        volume: &VolumeId,
        layers: &Layers,
    ) -> Result<OwnedFd, MountError> {
        fsopen::overlay(&Overlay {
            source: &format!("{SOURCE}{volume}"),
            layers: &[&self.mnt(view).join(SHOWN)],
            upper: Some((&layers.upper, &layers.work)),
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
            Shape::Writable | Shape::Bounded(_) => self.record_of(volume)?.is_some_and(|r| {
                r.view == *view && r.size == shape.size() && is_overlay_of(&r, dir, here, target)
            }),
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

    /// The volume's files are those of a live mount elsewhere: they must stay.
    pub(super) fn refuse_second_target(
        &self,
        target: &TargetPath,
        volume: &VolumeId,
    ) -> Result<(), MountError> {
        let Some(record) = self.record_of(volume)?.filter(|r| r.target != *target) else {
            return Ok(());
        };
        match self.look_at(&record.view, &record.target, volume, Shape::writable(record.size))? {
            Attached::Ours => Err(MountError::Busy { target: record.target }),
            Attached::Nothing | Attached::Foreign => Ok(()),
        }
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
