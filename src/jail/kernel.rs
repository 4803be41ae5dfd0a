//! Files of the kernel's: root writes most of `/proc/sys` and `/sys` without any capability, and a container
//! that is privileged has them, and the disks, as the machine has. `/proc/sys/kernel/core_pattern` alone is a
//! program that the kernel runs as the machine's root. They are shut twice:
//!
//! - [`leave`]: who keeps no capability writes none of them, wherever the driver runs: landlock(7).
//! - [`shut`]: in a container of our own they are read-only to all, builds apart, who have a `/proc` of theirs.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use rustix::process::getpid;
use rustix::thread::{CapabilitySet, capabilities};

use super::root::{clone_of, fresh, place};
use super::{SetupError, init, setup, sys, syscalls};

/// Where all of it lies.
const OF_THE_KERNEL: [&str; 3] = ["proc", "sys", "dev"];
/// Devices that are no machine's.
const DEVICES: [&str; 8] = [
    "/dev/full",
    "/dev/mqueue",
    "/dev/null",
    "/dev/random",
    "/dev/shm",
    "/dev/tty",
    "/dev/urandom",
    "/dev/zero",
];

/// Refuses this process and all that it starts what a filtered program has no use for. It must have given up
/// new privileges.
pub(super) fn refuse(is_jailed: bool) -> Result<(), SetupError> {
    if !is_jailed {
        leave()?;
    }
    syscalls::refuse().map_err(setup("refuse", "system calls (see --privileges)"))
}

/// From here on this process and all that it starts write nothing of the kernel's, open no disk, and look into
/// no process that others have started. A kernel without landlock leaves it as it is: [`can_be_left`].
fn leave() -> Result<(), SetupError> {
    let left = leave_files();
    left.map_err(|error| setup("leave", "/proc, /sys and /dev")(io::Error::other(error)))
}

/// Logs what this kernel leaves open for want of landlock.
pub fn say_what_stays_open() {
    if !can_be_left() {
        tracing::warn!("{NO_LANDLOCK}");
    } else if !has_scopes() {
        tracing::info!(
            "this kernel does not shut abstract Unix sockets off (Linux 6.12): evaluations reach those of \
             their network namespace"
        );
    }
}

const NO_LANDLOCK: &str = "the kernel has no landlock (Linux 5.19, and landlock in lsm= where that is set): Nix \
                           commands that ask the daemon, and the operator's programs, are root without a \
                           capability, and are left whatever in /proc, /sys and /dev root may write";

/// Whether the kernel has landlock: from 5.19 on as much of it as it takes, if `lsm=` does not leave it out.
fn can_be_left() -> bool {
    let access = AccessFs::from_write(ABI::V2);
    required().handle_access(access).is_ok()
}

/// From 6.12 on.
fn has_scopes() -> bool {
    required().scope(Scope::from_all(ABI::V6)).is_ok()
}

fn required() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

fn leave_files() -> Result<(), RulesetError> {
    let write = AccessFs::from_write(ABI::V3);
    let all = write | AccessFs::ReadFile;
    let ruleset = Ruleset::default().handle_access(all)?.create()?;
    let ruleset = ruleset.add_rules(path_beneath_rules(others(), all))?;
    let ruleset = ruleset.add_rules(path_beneath_rules(["/proc", "/sys"], AccessFs::ReadFile))?;
    ruleset.add_rules(path_beneath_rules(DEVICES, all))?.restrict_self()?;
    Ok(())
}

/// Takes from this process the abstract Unix sockets that others have made, and their processes. Linux 6.12 and
/// newer.
pub(super) fn leave_abstract_sockets() -> Result<(), RulesetError> {
    let ruleset = Ruleset::default().scope(Scope::from_all(ABI::V6))?.create()?;
    ruleset.restrict_self().map(drop)
}

/// What else the root directory has. A link's place is below one of them.
fn others() -> Vec<PathBuf> {
    let entries = fs::read_dir("/").into_iter().flatten().flatten();
    let is_other = |entry: &fs::DirEntry| {
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        !is_link && !OF_THE_KERNEL.iter().any(|name| entry.file_name() == *name)
    };
    entries.filter(is_other).map(|entry| entry.path()).collect()
}

/// What a container has read-only that is not privileged.
const SHUT: [&str; 5] = ["/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger"];
/// Covered by `/proc/sys`.
const HIDDEN: &str = "/proc/sys";

/// Makes them read-only in this mount namespace, if it is a container's of our own that has them writable. To be
/// called while there is one thread, before anything is mounted. Whether it was.
pub fn shut() -> Result<bool, SetupError> {
    let has_mounts = capabilities(None).map_err(setup("read", "capabilities"))?;
    if !is_our_container() || !has_mounts.effective.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(false);
    }
    let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mut covers = Vec::new();
    for path in SHUT.map(Path::new).into_iter().filter(|path| fs::exists(path).unwrap_or(true)) {
        let cover = clone_of(path)?;
        sys::set_attributes(&cover, read_only, true).map_err(setup("make read-only", path))?;
        covers.push((path, cover));
    }
    let whole = [("proc", clone_alone("/proc")?), ("sys", clone_alone("/sys")?)];
    // Nothing of this leaves the namespace.
    let (proc, sys) = (opened("/proc")?, opened("/sys")?);
    sys::set_attributes(&proc, MountAttrFlags::empty(), false)
        .map_err(setup("make private", "/proc"))?;
    hide(whole)?;
    for (path, cover) in covers {
        place(&cover, path)?;
    }
    sys::set_attributes(&sys, read_only, false).map_err(setup("make read-only", "/sys"))?;
    Ok(true)
}

/// We are what the first process of a pid namespace has started, and `/proc` is of that namespace: so do
/// containers' runtimes, and unshare(1) with `--mount-proc`. On a machine somebody else is the first process.
fn is_our_container() -> bool {
    let own = fs::read_link("/proc/self").ok();
    let is_here = own.is_some_and(|own| own.as_os_str() == &*getpid().as_raw_nonzero().to_string());
    init::has_split() && is_here && is_the_machines_root()
}

/// In a user namespace that some container has root is somebody else, to whom these files are closed.
fn is_the_machines_root() -> bool {
    let users = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    users.split_whitespace().eq(["0", "0", "4294967295"])
}

/// A user namespace gets a `/proc` of its own only where one is mounted of which nothing is covered, wherever
/// that is: `mnt_already_visible` of the kernel's fs/namespace.c. Nix's sandbox needs that, so whole ones lie
/// where no path leads: below what covers [`HIDDEN`].
fn hide(whole: [(&str, OwnedFd); 2]) -> Result<(), SetupError> {
    let below = fresh("tmpfs", &[("size", "4096".into()), ("mode", "700".into())], quiet())?;
    place(&below, Path::new(HIDDEN))?;
    for (name, mount) in whole {
        let target = Path::new(HIDDEN).join(name);
        fs::create_dir(&target).map_err(setup("create", &target))?;
        place(&mount, &target)?;
    }
    Ok(())
}

fn quiet() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// Without what is mounted in it.
fn clone_alone(path: &'static str) -> Result<OwnedFd, SetupError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    open_tree(CWD, path, flags).map_err(setup("open", path))
}

fn opened(path: &'static str) -> Result<OwnedFd, SetupError> {
    open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLOEXEC).map_err(setup("open", path))
}
