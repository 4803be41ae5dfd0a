//! The jail's root: a small tmpfs with what is bound into it, and nothing else of the node's.
//!
//! Mounts are made detached, given their attributes, and then moved into place (open_tree(2),
//! mount_setattr(2), move_mount(2)), so a read-only one was never writable. Then pivot_root(2).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{
    CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, open, openat, openat2, readlinkat,
    symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{Gid, Uid, chdir, chroot, pivot_root};
use rustix::thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::{Access, Bind, Jail, SetupError, capabilities, kernel, setup, sys};

/// Where the new root is put together. Every system has it, and in this namespace nobody misses it.
const STAGE: &str = "/proc";
/// The jail's root is a directory of the new root: to a process in a chroot(2) the kernel gives no
/// user namespace, where it would be root of much of the kernel's code. There is nothing beside it.
const JAIL: &str = "jail";
/// Bytes: directories, links and two short files.
const ROOT_BYTES: u64 = 4 << 20;
/// Bytes: a file costs as much memory as it holds.
const TMP_FILE: u64 = 4 << 10;
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];

/// Moves this process into the jail and gives up every privilege.
pub(super) fn enter(jail: &Jail) -> Result<(), SetupError> {
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS)
        .map_err(setup("make", "namespaces"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(setup("make private", "/"))?;
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    // All are opened before the stage hides anything.
    let shown = shown(jail, quiet)?;
    let devices = devices()?;
    let root = fresh("tmpfs", &[("size", ROOT_BYTES.to_string()), ("mode", "755".into())], quiet)?;
    place(&root, Path::new(STAGE))?;
    for (name, device) in &devices {
        let target = inside(&Path::new("/dev").join(name));
        file(&target, "")?;
        place(device, &target)?;
    }
    link("/proc/self/fd", "/dev/fd")?;
    let inodes = (jail.tmp_bytes / TMP_FILE).max(1).to_string();
    let size = jail.tmp_bytes.max(1).to_string();
    let options = [("size", size), ("nr_inodes", inodes), ("mode", "1777".into())];
    let tmp = fresh("tmpfs", &options, quiet)?;
    let proc = fresh("proc", &[], quiet | MountAttrFlags::MOUNT_ATTR_NOEXEC)?;
    for (mount, target) in [(&tmp, "/tmp"), (&proc, "/proc")] {
        let target = inside(Path::new(target));
        directory(&target)?;
        place(mount, &target)?;
    }
    accounts(jail)?;
    // Last, so that something below /tmp is not covered; in a read-only /etc nothing could be made.
    for (target, what) in &shown {
        show(target, what)?;
    }
    sys::set_attributes(&root, quiet | MountAttrFlags::MOUNT_ATTR_RDONLY, false)
        .map_err(setup("make read-only", "the jail's root"))?;
    // pivot_root(2): with both at one place, the old root lies on the new one, and is taken off.
    chdir(STAGE).map_err(setup("enter", STAGE))?;
    pivot_root(".", ".").map_err(setup("change", "the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(setup("detach", "the old root"))?;
    chroot(JAIL).map_err(setup("enter", "the jail's root"))?;
    chdir(&jail.chdir).map_err(setup("enter", &jail.chdir))?;
    drop_privileges(jail)
}

fn drop_privileges(jail: &Jail) -> Result<(), SetupError> {
    let (uid, gid) = (Uid::from_raw(jail.uid), Gid::from_raw(jail.gid));
    // Later programs get none either.
    capabilities::bound_to(capabilities::NOTHING).map_err(setup("drop", "capabilities"))?;
    set_thread_groups(&[]).map_err(setup("leave", "all groups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(setup("change", "the group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(setup("change", "the user"))?;
    // That cleared all but what is inheritable, which some container runtimes give.
    capabilities::keep_only(capabilities::NOTHING).map_err(setup("give up", "capabilities"))?;
    // Linux 6.12 and newer; an older one leaves the rest that the module's words tell of.
    let _ = kernel::leave_abstract_sockets();
    Ok(())
}

/// What is shown at a place of the jail.
enum What {
    Mount { mount: OwnedFd, is_dir: bool },
    Link(PathBuf),
}

fn shown(jail: &Jail, quiet: MountAttrFlags) -> Result<Vec<(PathBuf, What)>, SetupError> {
    let mut all = Vec::new();
    for bind in &jail.binds {
        if let Some(what) = opened(bind, quiet)? {
            all.push((bind.target.clone(), what));
        }
    }
    Ok(all)
}

fn opened(bind: &Bind, quiet: MountAttrFlags) -> Result<Option<What>, SetupError> {
    let source = &bind.source;
    let found = match fs::symlink_metadata(source) {
        Ok(found) => found,
        Err(err)
            if bind.access == Access::ReadOnlyIfThere && err.kind() == io::ErrorKind::NotFound =>
        {
            return Ok(None);
        }
        Err(err) => return Err(setup("show", source)(err)),
    };
    if found.is_symlink() {
        let leads = fs::read_link(source).map_err(setup("read", source))?;
        return Ok(Some(What::Link(leads)));
    }
    let mount = clone_of(source)?;
    let attributes = match bind.access {
        Access::ReadOnly | Access::ReadOnlyIfThere => quiet | MountAttrFlags::MOUNT_ATTR_RDONLY,
        Access::Writable => quiet,
    };
    sys::set_attributes(&mount, attributes, true).map_err(setup("restrict", source))?;
    Ok(Some(What::Mount { mount, is_dir: found.is_dir() }))
}

fn devices() -> Result<Vec<(&'static str, OwnedFd)>, SetupError> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let device = |name: &'static str| {
        let source = Path::new("/dev").join(name);
        let mount = clone_of(&source)?;
        sys::set_attributes(&mount, quiet, false).map_err(setup("restrict", &source))?;
        Ok((name, mount))
    };
    DEVICES.into_iter().map(device).collect()
}

pub(super) fn clone_of(source: &Path) -> Result<OwnedFd, SetupError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    open_tree(CWD, source, flags).map_err(setup("open", source))
}

pub(super) fn fresh(
    kind: &'static str,
    options: &[(&str, String)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, SetupError> {
    let make = || {
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in options {
            fsconfig_set_string(&context, *key, value.as_str())?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    };
    make().map_err(setup("make", kind))
}

pub(super) fn place(mount: &OwnedFd, target: &Path) -> Result<(), SetupError> {
    move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(setup("mount", target))
}

fn show(target: &Path, what: &What) -> Result<(), SetupError> {
    let (mount, is_dir) = match what {
        What::Link(leads) => return link_in_jail(leads, target).map_err(setup("create", target)),
        What::Mount { mount, is_dir } => (mount, *is_dir),
    };
    let place = if is_dir { directory_in_jail(target) } else { file_in_jail(target) };
    let place = place.map_err(setup("create", target))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", place, "", flags).map_err(setup("mount", target))
}

/// A place of the jail while it is put together. Targets have no `..` in them.
fn inside(target: &Path) -> PathBuf {
    Path::new(STAGE).join(JAIL).join(target.strip_prefix("/").unwrap_or(target))
}

/// Some of it may lie in what an evaluator can write to: links lead nowhere but into the jail.
fn directory_in_jail(target: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = open(inside(Path::new("/")), flags, Mode::empty())?;
    let opened = |path: &Path| openat2(&root, path, flags, Mode::empty(), resolve);
    let (mut path, mut dir) = (PathBuf::new(), opened(Path::new("."))?);
    for part in target.strip_prefix("/").unwrap_or(target).components() {
        match mkdirat(&dir, part.as_os_str(), Mode::from_raw_mode(0o755)) {
            // In a read-only one it is there, or can't be.
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(error) => return Err(error),
        }
        path.push(part);
        dir = opened(&path)?;
    }
    Ok(dir)
}

/// A link there. In what an evaluator keeps it may be from the last time.
fn link_in_jail(leads: &Path, target: &Path) -> Result<(), Errno> {
    let dir = directory_in_jail(target.parent().unwrap_or(target))?;
    let name = target.file_name().unwrap_or_default();
    match symlinkat(leads, &dir, name) {
        Err(Errno::EXIST)
            if readlinkat(&dir, name, Vec::new())?.as_bytes() == leads.as_os_str().as_bytes() =>
        {
            Ok(())
        }
        made => made,
    }
}

/// A file there, empty if it is new; no link.
fn file_in_jail(target: &Path) -> Result<OwnedFd, Errno> {
    let dir = directory_in_jail(target.parent().unwrap_or(target))?;
    let name = target.file_name().unwrap_or_default();
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    match openat(&dir, name, create, Mode::from_raw_mode(0o644)) {
        // It may lie in a directory that is shown read-only.
        Ok(_) | Err(Errno::EXIST | Errno::ROFS) => {}
        Err(error) => return Err(error),
    }
    let place =
        openat(&dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let kind = FileType::from_raw_mode(fstat(&place)?.st_mode);
    if kind == FileType::Symlink { Err(Errno::LOOP) } else { Ok(place) }
}

fn directory(path: &Path) -> Result<(), SetupError> {
    fs::create_dir_all(path).map_err(setup("create", path))
}

fn file(path: &Path, text: &str) -> Result<(), SetupError> {
    directory(path.parent().unwrap_or(path))?;
    fs::write(path, text).map_err(setup("create", path))
}

fn link(leads: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<(), SetupError> {
    let target = inside(target.as_ref());
    directory(target.parent().unwrap_or(&target))?;
    symlink(leads, &target).map_err(setup("create", &target))
}

/// ssh and git ask who they are.
fn accounts(jail: &Jail) -> Result<(), SetupError> {
    let Jail { uid, gid, home, .. } = jail;
    let home = home.display();
    let users = format!("root:x:0:0::/:/bin/false\nnix-eval:x:{uid}:{gid}::{home}:/bin/false\n");
    file(&inside(Path::new("/etc/passwd")), &users)?;
    file(&inside(Path::new("/etc/group")), &format!("root:x:0:\nnix-eval:x:{gid}:\n"))
}
