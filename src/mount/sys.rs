//! Thin wrappers over the kernel's mount API (`open_tree`, `move_mount`, `mount_setattr`; for `fsopen`
//! see `fsopen`): a mount is made detached, given its attributes, and only then shown, so that nobody
//! ever sees a half-configured one. And the ioctls of loop devices. The one module with `unsafe` code.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::MountError;
use super::failure::{failed, mount_failed};

/// `MS_PRIVATE` of linux/mount.h.
const PRIVATE: u64 = 1 << 18;

/// A fork and its exec take about a millisecond; a busy machine gets some more.
const BUSY_PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
];

/// A detached copy of the mount at `path`, from `path` downwards and without what is mounted below
/// it: read-only, nosuid, nodev, and a peer of nothing.
pub(super) fn clone_read_only(path: &Path) -> Result<OwnedFd, MountError> {
    let tree = rustix::mount::open_tree(
        CWD,
        path,
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW,
    )
    .map_err(mount_failed("clone the mount of", path))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    set_attributes(tree.as_fd(), attributes, PRIVATE)
        .map_err(failed("make read-only the clone of", path))?;
    Ok(tree)
}

/// Takes a mount out of its peer group, so that nothing mounted below it spreads.
pub(super) fn make_private(mount: BorrowedFd<'_>, path: &Path) -> Result<(), MountError> {
    set_attributes(mount, MountAttrFlags::empty(), PRIVATE)
        .map_err(failed("make private the mount", path))
}

/// Takes a mount that nobody sees yet out of its peer group and makes it read-only.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    set_attributes(mount, MountAttrFlags::MOUNT_ATTR_RDONLY, PRIVATE)
}

/// The kernel's `struct mount_attr`, version 0.
#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

#[expect(unsafe_code, reason = "neither libc nor rustix wraps mount_setattr")]
fn set_attributes(
    mount: BorrowedFd<'_>,
    set: MountAttrFlags,
    propagation: u64,
) -> Result<(), Errno> {
    let attr = MountAttr { attr_set: set.bits().into(), attr_clr: 0, propagation, userns_fd: 0 };
    // SAFETY: the path is a NUL-terminated string, `attr` lives across the call and its size is
    // passed with it; the kernel writes to neither.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `struct mnt_id_req` of linux/mount.h, version 0.
#[repr(C)]
struct MountsAsked {
    size: u32,
    spare: u32,
    /// `LSMT_ROOT`: all.
    below: u64,
    /// The last one that is known.
    after: u64,
}

/// The same on all architectures.
const SYS_LISTMOUNT: libc::c_long = 458;

/// How many mounts the mount namespace has.
#[expect(unsafe_code, reason = "neither libc nor rustix wraps listmount")]
pub(super) fn count_mounts() -> Result<u64, Errno> {
    let mut ids = vec![0_u64; 4096];
    let (mut all, mut after) = (0, 0);
    loop {
        let asked = MountsAsked { size: 24, spare: 0, below: u64::MAX, after };
        // SAFETY: `asked` and `ids` live across the call; the kernel reads `size` bytes of the one and
        // writes at most `ids.len()` numbers to the other.
        let found = unsafe {
            libc::syscall(SYS_LISTMOUNT, &raw const asked, ids.as_mut_ptr(), ids.len(), 0_u32)
        };
        let found = usize::try_from(found).map_err(|_| last_error())?;
        all += found as u64;
        match ids[..found].last() {
            Some(last) if found == ids.len() => after = *last,
            _ => return Ok(all),
        }
    }
}

/// Of linux/loop.h.
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// The kernel's `struct loop_config` with the `struct loop_info64` in it.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    before_flags: [u32; 13],
    flags: u32,
    after_flags: [u64; 30],
}

/// The number of a loop device that has no file, made if there is none.
#[expect(unsafe_code, reason = "neither libc nor rustix wraps the ioctls of loop devices")]
pub(super) fn free_loop(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: this ioctl takes no argument.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    u32::try_from(number).map_err(|_| last_error())
}

/// Gives the loop device its file, which it keeps until nobody has the device open or mounted. Its
/// blocks are read and written past the page cache if the file's system can do that.
#[expect(unsafe_code, reason = "neither libc nor rustix wraps the ioctls of loop devices")]
pub(super) fn configure_loop(
    device: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    block_size: u32,
) -> Result<(), Errno> {
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?,
        block_size,
        before_flags: [0; 13],
        flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
        after_flags: [0; 30],
    };
    // SAFETY: `config` has the layout and size that this ioctl reads, and lives across the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Shows a detached mount at the directory `at`; `path` is its name for the error.
pub(super) fn show(tree: &OwnedFd, at: BorrowedFd<'_>, path: &Path) -> Result<(), MountError> {
    rustix::mount::move_mount(
        tree,
        c"",
        at,
        c"",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .map_err(mount_failed("mount at", path))
}

/// Takes the topmost mount off `path`. A child process of ours holds copies of all descriptors, also
/// of those just closed here, between its fork and its exec: EBUSY is believed only when it stays.
pub(super) fn unmount(path: &Path) -> Result<(), Errno> {
    let mut pauses = BUSY_PAUSES.iter();
    loop {
        match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => match pauses.next() {
                Some(pause) => std::thread::sleep(*pause),
                None => return Err(Errno::BUSY),
            },
            result => return result,
        }
    }
}

/// Opens a directory of ours by its path, for use as a base.
pub(super) fn open_dir(path: &Path) -> Result<OwnedFd, MountError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed("open", path))
}

/// What identifies an opened file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_mount_root: bool,
    /// As in mountinfo.
    pub(super) mount_id: u64,
    pub(super) dev: u64,
    pub(super) ino: u64,
}

/// Costs one system call however many mounts there are.
pub(super) fn place(fd: impl AsFd) -> Result<Place, Errno> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT;
    let found = rustix::fs::statx(fd, c"", flags, StatxFlags::INO | StatxFlags::MNT_ID)?;
    if !found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::OPNOTSUPP); // before Linux 5.8; the driver needs 5.12 anyway
    }
    Ok(Place {
        is_mount_root: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        mount_id: found.stx_mnt_id,
        dev: rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor),
        ino: found.stx_ino,
    })
}

/// Whether something is mounted on the directory `path`; an absent directory has no mount.
pub(super) fn is_mount_root(path: &Path) -> Result<bool, MountError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()).and_then(place) {
        Ok(place) => Ok(place.is_mount_root),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(failed("look at", path)(e)),
    }
}
