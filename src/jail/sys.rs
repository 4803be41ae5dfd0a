//! The calls that have no safe wrapper. The room's one module with `unsafe` code. All of it is called
//! by a process of one thread.

#![expect(unsafe_code, reason = "system calls that rustix does not have")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::mount::MountAttrFlags;
use rustix::thread::UnshareFlags;

/// `MS_PRIVATE` of linux/mount.h.
const PRIVATE: u64 = 1 << 18;

/// Who came back from a fork.
pub(super) enum Forked {
    Child,
    Parent(rustix::process::Pid),
}

/// fork(2). Nothing but the caller's thread exists, so the child may do as it likes.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: one thread, so no lock is held by one that the child does not have.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => rustix::process::Pid::from_raw(pid)
            .map(Forked::Parent)
            .ok_or_else(io::Error::last_os_error),
    }
}

/// Namespaces only: no file descriptors are unshared.
pub(super) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors stay shared with nobody.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(Into::into)
}

/// Blocks `signals` and gives a descriptor that tells of them: signalfd(2).
pub(super) fn signals(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset before it is used.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// The signal that a record read from [`signals`] is about; its first field.
pub(super) const SIGNAL_RECORD: usize = size_of::<libc::signalfd_siginfo>();

/// Lets all signals through again, for the program.
pub(super) fn unblock_signals() {
    // SAFETY: the set is initialised by sigemptyset.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// Ends this process by a signal whose default is to end it.
pub(super) fn die_of(signal: i32) {
    // SAFETY: sets the default disposition and sends the signal to itself.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Closes all descriptors above standard error: close_range(2), Linux 5.9. For the guard's very start:
/// one of the driver's that was inherited may be another guard's lifeline.
pub(super) fn close_inherited() -> io::Result<()> {
    // SAFETY: nothing here has opened a descriptor yet.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// This process and its children run when nobody else of their control group wants to, and can't change that
/// again: sched(7), SCHED_IDLE. For the disk they are the last of the usual ones: by itself an idle process may
/// wait for a disk as long as anybody at all uses it, ioprio_set(2).
pub(super) fn yield_processors() -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS`, and class best effort (2), level 7, of linux/ioprio.h.
    const PROCESS: libc::c_int = 1;
    const LAST_OF_THE_USUAL: libc::c_int = (2 << 13) | 7;
    let done = |result: libc::c_long| {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // The kernel's `struct sched_param`. Not every libc has the call.
    let priority: libc::c_int = 0;
    // SAFETY: `priority` lives across the call; the other call has numbers only.
    unsafe {
        let call = libc::SYS_sched_setscheduler;
        done(libc::syscall(call, 0, libc::SCHED_IDLE, &raw const priority))?;
        done(libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, LAST_OF_THE_USUAL))
    }
}

/// Gives a mount attributes, with those below it if `recursive`; it tells the host nothing of what
/// is mounted in it: mount_setattr(2).
pub(super) fn set_attributes(
    mount: impl AsFd,
    attributes: MountAttrFlags,
    recursive: bool,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation: PRIVATE,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a C string, and the kernel reads `size_of` bytes of `attr`.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
