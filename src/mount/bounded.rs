//! Where a bounded volume's writes go: ext4 in a sparse file, on a loop device. Its blocks are the
//! node's only when they are written.
//!
//! The file system is at `<volume>/fs` only until the volume's overlay is made, which holds it from then
//! on: with the overlay's last mount it ends, and the loop device with it. A process that dies
//! half-way leaves a mount at most, which [`hide`] takes off.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::io::Errno;

use super::failure::{failed, io_error};
use super::{MountError, fsopen, layer, loopdev, sys};
use crate::crash::crash_point;
use crate::model::VolumeSize;

const IMAGE: &str = "image";
const FS: &str = "fs";

const MKFS: &str = "mkfs.ext4";
/// It is in none of a user's directories on Debian, and elsewhere on NixOS.
const SEARCH_PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin:/run/current-system/sw/bin";
/// Of ext4: what a store's many small files and links want, and nothing for a crash, since nobody reads
/// the file after one. `none` takes away what a distribution's mke2fs.conf adds.
const FEATURES: &str = "none,64bit,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,\
                        huge_file,large_file,sparse_super2,uninit_bg";
/// Nothing is kept for root, an inode per 8 KiB, no superblock has a copy, and the zeroes of a new
/// file are not written again.
const ARGS: [&str; 13] = [
    "-q",
    "-F",
    "-b",
    "4096",
    "-I",
    "256",
    "-i",
    "8192",
    "-m",
    "0",
    "-E",
    "lazy_itable_init=1,nodiscard,num_backup_sb=0",
    "-O",
];

/// Makes the file system in the volume's directory `files` and shows it there: the result.
pub(super) fn make(files: &Path, size: VolumeSize) -> Result<PathBuf, MountError> {
    let (image, at) = (files.join(IMAGE), files.join(FS));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&image)
        .map_err(failed("make", &image))?;
    file.set_len(size.bytes()).map_err(failed("size", &image))?;
    make_file_system(&image)?;
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

fn make_file_system(image: &Path) -> Result<(), MountError> {
    let output = Command::new(MKFS)
        .args(ARGS)
        .arg(FEATURES)
        .arg(image)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| {
            let hint = "it is in e2fsprogs".to_owned();
            io_error("run", MKFS.into(), e, Some(hint))
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let errno = if said.contains("No space left") { Errno::NOSPC } else { Errno::IO };
    Err(io_error("make ext4 in", image.to_owned(), errno.into(), Some(said)))
}
