//! Where a bounded volume's writes go: ext4 in a sparse file, on a loop device. Its blocks are the
//! node's only when they are written.
//!
//! The file system is at `<volume>/fs` only until the volume's overlay is made, which holds it from then
//! on: with the overlay's last mount it ends, and the loop device with it. A process that dies
//! half-way leaves a mount at most, which [`hide`] takes off.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::failure::failed;
use super::{MountError, fsopen, layer, loopdev, mkfs, sys};
use crate::crash::crash_point;
use crate::model::VolumeSize;

const IMAGE: &str = "image";
const FS: &str = "fs";

/// Makes the file system in the volume's directory `files` and shows it there: the result.
pub(super) fn make(
    files: &Path,
    size: VolumeSize,
    search_path: &OsStr,
) -> Result<PathBuf, MountError> {
    let (image, at) = (files.join(IMAGE), files.join(FS));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&image)
        .map_err(failed("make", &image))?;
    file.set_len(size.bytes()).map_err(failed("size", &image))?;
    mkfs::ext4(&image, search_path)?;
    crash_point("attach-image-made");
    layer::make_dir(&at)?;
    let device = loopdev::attach(&file)?;
    let tree = fsopen::scratch_ext4(&device.path)?;
    sys::show(&tree, sys::open_dir(&at)?.as_fd(), &at)?;
    crash_point("attach-image-shown");
    Ok(at)
}

/// Takes the file system off its place in the volume's directory.
pub(super) fn hide(files: &Path) -> Result<(), MountError> {
    let at = files.join(FS);
    while sys::is_mount_root(&at)? {
        sys::unmount(&at).map_err(failed("unmount", &at))?;
    }
    Ok(())
}

/// What is wrong is the node's: there is no other way to bound a volume.
pub(super) fn refusal(error: MountError) -> MountError {
    match error {
        MountError::NoSpace { .. } | MountError::Unbounded { .. } => error,
        other => MountError::Unbounded { reason: other.to_string() },
    }
}
