//! New file systems through `fsopen`, detached and configured before anybody sees them: overlays, and
//! the ext4 of a bounded volume.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string,
};

use super::MountError;
use super::failure::io_error;

/// Bytes that one `fsconfig` string may have, without its NUL.
const MAX_FSCONFIG: usize = 255;
/// Each message is a read of its own; more than a few are noise.
const MAX_MESSAGES: usize = 8;

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
    let access = match spec.upper {
        Some(_) => MountAttrFlags::empty(),
        None => MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    make("overlay", access, |context| apply(spec, style, context))
}

/// A new detached ext4 on the block device `device`, nosuid and nodev. It is as good as its mount:
/// nobody needs it after a crash, so nothing waits for the disk. Blocks of deleted files are given back.
pub(super) fn scratch_ext4(device: &Path) -> Result<OwnedFd, MountError> {
    let apply = |context: BorrowedFd<'_>| {
        fsconfig_set_string(context, "source", device)?;
        // The tables of a new sparse file are zero already.
        for flag in ["nobarrier", "discard", "noinit_itable"] {
            fsconfig_set_flag(context, flag)?;
        }
        fsconfig_set_string(context, "errors", "remount-ro")?;
        fsconfig_create(context)
    };
    make("ext4", MountAttrFlags::empty(), apply).map_err(|refusal| {
        io_error("mount", device.to_owned(), refusal.errno.into(), refusal.detail)
    })
}

fn make(
    kind: &str,
    more: MountAttrFlags,
    apply: impl FnOnce(BorrowedFd<'_>) -> Result<(), Errno>,
) -> Result<OwnedFd, Refusal> {
    let context =
        rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| Refusal {
            errno,
            detail: (errno == Errno::NODEV).then(|| format!("this kernel has no {kind}")),
        })?;
    apply(context.as_fd()).map_err(|errno| Refusal { errno, detail: messages(&context) })?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | more;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(|errno| Refusal { errno, detail: None })
}

fn apply(spec: &Overlay<'_>, style: LayerStyle, context: BorrowedFd<'_>) -> Result<(), Errno> {
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
