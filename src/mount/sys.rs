//! Thin wrappers over the kernel's mount API (`fsopen`, `open_tree`, `move_mount`,
//! `mount_setattr`): a mount is made detached, given its attributes, and only then shown, so that
//! nobody ever sees a half-configured one. The one module with `unsafe` code.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};

use super::MountError;
use super::failure::{failed, io_error, mount_failed};

/// Bytes that one `fsconfig` string may have, without its NUL.
const MAX_FSCONFIG: usize = 255;
/// Each message is a read of its own; more than a few are noise.
const MAX_MESSAGES: usize = 8;

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

/// What an overlay is made of. `layers` is ordered from top to bottom.
pub(super) struct Overlay<'a> {
    /// Shown as the device in mount tables.
    pub(super) source: &'a str,
    pub(super) layers: &'a [&'a Path],
    /// `upperdir` and `workdir`; without them the overlay is read-only.
    pub(super) upper: Option<(&'a Path, &'a Path)>,
    /// Further options; `None` is a flag.
    pub(super) options: &'a [(&'a str, Option<&'a str>)],
}

#[derive(Clone, Copy)]
enum LayerStyle {
    /// `lowerdir+`, one call per layer (Linux 6.8): each may be as long as the limit.
    Each,
    /// One `lowerdir` with colons.
    Joined,
}

/// An error with the kernel's own words.
struct Refusal {
    errno: Errno,
    detail: Option<String>,
}

/// A new detached overlay, nosuid and nodev.
pub(super) fn overlay(spec: &Overlay<'_>) -> Result<OwnedFd, MountError> {
    configure(spec, LayerStyle::Each)
        .or_else(|first| {
            // An unknown option is EINVAL, from `fsconfig` or, in old kernels, only at the end.
            if first.errno == Errno::INVAL {
                configure(spec, LayerStyle::Joined)
            } else {
                Err(first)
            }
        })
        .map_err(|refusal| {
            let top = spec.upper.map_or(spec.layers[0], |(upper, _)| upper);
            io_error("make an overlay of", top.to_owned(), refusal.errno.into(), refusal.detail)
        })
}

fn configure(spec: &Overlay<'_>, style: LayerStyle) -> Result<OwnedFd, Refusal> {
    let plain = |errno| Refusal { errno, detail: None };
    let context =
        rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| Refusal {
            errno: e,
            detail: (e == Errno::NODEV).then(|| "this kernel has no overlayfs".to_owned()),
        })?;
    apply(spec, style, context.as_fd())
        .map_err(|errno| Refusal { errno, detail: messages(&context) })?;
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    if spec.upper.is_none() {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(plain)
}

fn apply(spec: &Overlay<'_>, style: LayerStyle, context: BorrowedFd<'_>) -> Result<(), Errno> {
    use rustix::mount::{fsconfig_create, fsconfig_set_flag, fsconfig_set_string};
    fsconfig_set_string(context, "source", spec.source)?;
    match style {
        LayerStyle::Each => {
            for layer in spec.layers {
                fsconfig_set_string(context, "lowerdir+", *layer)?;
            }
        }
        LayerStyle::Joined => {
            let joined = spec
                .layers
                .iter()
                .map(|l| l.as_os_str())
                .collect::<Vec<_>>()
                .join(std::ffi::OsStr::new(":"));
            if joined.len() > MAX_FSCONFIG {
                return Err(Errno::NAMETOOLONG);
            }
            fsconfig_set_string(context, "lowerdir", joined)?;
        }
    }
    if let Some((upper, work)) = spec.upper {
        fsconfig_set_string(context, "upperdir", upper)?;
        fsconfig_set_string(context, "workdir", work)?;
    }
    for (key, value) in spec.options {
        match value {
            Some(value) => fsconfig_set_string(context, *key, *value)?,
            None => fsconfig_set_flag(context, *key)?,
        }
    }
    fsconfig_create(context)
}

/// What the kernel says in the context's log, `e overlay: …` per line, without the level letter.
fn messages(context: &OwnedFd) -> Option<String> {
    let mut all = Vec::new();
    let mut buffer = [0_u8; 1024];
    while all.len() < MAX_MESSAGES {
        match rustix::io::read(context, &mut buffer) {
            Ok(n) if n > 0 => {
                let text = String::from_utf8_lossy(&buffer[..n]);
                let text = text.trim_end();
                all.push(text.split_once(' ').map_or(text, |(_, t)| t).to_owned());
            }
            _ => break,
        }
    }
    (!all.is_empty()).then(|| all.join("; "))
}

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
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
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
