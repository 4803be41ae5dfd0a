//! What a writable volume has on disk, `<volumes>/<id>/`: `upper/` and `work/`, of a bounded one in a
//! file system of its own (`bounded`), and `volume.json`, written before the mount is shown.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::bounded;
use super::failure::failed;
use super::identity::place;
use super::layer;
use super::metadata::{self, VolumeRecord};
use super::real::RealMounts;
use super::views::{gone, is_absent};
use super::volumes::is_overlay_of;
use super::{MountError, Mounts as _, Usage};
use crate::model::{VolumeId, VolumeSize};

const UPPER: &str = "upper";
const WORK: &str = "work";

/// For an overlay's writes.
pub(super) struct Layers {
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
}

impl Layers {
    /// In the absent directory `files`. Of a bounded volume they are gone when its file system is
    /// hidden and no overlay holds it.
    pub(super) fn make(
        files: &Path,
        size: Option<VolumeSize>,
        search_path: &OsStr,
    ) -> Result<Self, MountError> {
        layer::make_dir(files)?;
        let within = match size {
            Some(size) => bounded::make(files, size, search_path).map_err(bounded::refusal)?,
            None => files.to_owned(),
        };
        let layers = Self { upper: within.join(UPPER), work: within.join(WORK) };
        layer::make_dir(&layers.upper)?;
        layer::make_dir(&layers.work)?;
        Ok(layers)
    }
}

impl RealMounts {
    pub(super) fn record_of(&self, volume: &VolumeId) -> Result<Option<VolumeRecord>, MountError> {
        metadata::read(&self.volume_dir(volume), &self.boot_id)
    }

    pub(super) fn remove_files(&self, volume: &VolumeId) -> Result<(), MountError> {
        let dir = self.volume_dir(volume);
        // Most volumes are read-only and have none.
        if is_absent(&dir) {
            return Ok(());
        }
        bounded::hide(&dir)?;
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

    /// An overlay has the numbers of what its writes go to.
    pub(super) fn usage(&self, volume: &VolumeId) -> Result<Usage, MountError> {
        let dir = self.volume_dir(volume);
        let absent = || failed("look for a mount of", &dir)(Errno::NOENT);
        let record = self.record_of(volume)?.ok_or_else(absent)?;
        let target = record.target.as_path();
        let root = self.roots.open(&record.target)?.directory()?.ok_or_else(absent)?;
        if !is_overlay_of(&record, &root, place(&root, target)?, &record.target) {
            return Err(absent());
        }
        let s =
            rustix::fs::fstatvfs(&root).map_err(failed("look at the file system of", target))?;
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
