//! Gives new files the metadata of the store's, and copies what can't be linked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, fchmod, fchown, fstat,
    futimens,
};
use rustix::io::Errno;

/// Owner, mode and, last, the time, which every other change would touch.
pub(super) fn take_metadata(fd: impl AsFd, of: &Stat) -> Result<(), Errno> {
    let fd = fd.as_fd();
    let now = fstat(fd)?;
    if (now.st_uid, now.st_gid) != (of.st_uid, of.st_gid) {
        fchown(fd, Some(Uid::from_raw(of.st_uid)), Some(Gid::from_raw(of.st_gid)))?;
    }
    // A change of owner may clear bits of the mode, so this comes after it.
    if now.st_mode != of.st_mode || now.st_uid != of.st_uid {
        fchmod(fd, Mode::from_raw_mode(of.st_mode))?;
    }
    futimens(fd, &modified_like(of))
}

fn modified_like(of: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec {
            tv_sec: of.st_mtime,
            tv_nsec: i64::try_from(of.st_mtime_nsec).unwrap_or(0),
        },
    }
}

/// A new symlink `name` in `to` like the one in `from`.
pub(super) fn symlink(
    from: impl AsFd,
    to: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    of: &Stat,
) -> Result<(), Errno> {
    let goal = rustix::fs::readlinkat(from, name, Vec::new())?;
    let to = to.as_fd();
    rustix::fs::symlinkat(goal, to, name)?;
    let now = rustix::fs::statat(to, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (now.st_uid, now.st_gid) != (of.st_uid, of.st_gid) {
        rustix::fs::chownat(
            to,
            name,
            Some(Uid::from_raw(of.st_uid)),
            Some(Gid::from_raw(of.st_gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
    }
    rustix::fs::utimensat(to, name, &modified_like(of), AtFlags::SYMLINK_NOFOLLOW)
}

/// A new empty file that only its owner can read until it takes its metadata.
pub(super) fn new_file(to: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(to, name, flags, Mode::from_raw_mode(0o600))
}

/// Copies a regular file with its metadata, sharing blocks where the file system can.
pub(super) fn file(
    from: impl AsFd,
    to: impl AsFd,
    name: impl rustix::path::Arg + Copy,
    of: &Stat,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut source = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
    let mut copy = File::from(new_file(to, name)?);
    if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
        io::copy(&mut source, &mut copy)?;
    }
    Ok(take_metadata(&copy, of)?)
}
