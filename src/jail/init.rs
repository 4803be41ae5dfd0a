//! The first process of a container. The kernel gives it every orphan of its pid namespace, and
//! somebody must wait for them. A runtime that waits for its own children by pid and also for
//! whoever else there is would take the statuses of its own, so the two are kept apart: the first
//! process forks, waits for all and passes signals on; the child does the work.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, getpid, kill_process, set_parent_process_death_signal};

use super::sys::{self, Forked};
use super::{SETUP_FAILED, SetupError, capabilities, children, setup, supervise};

/// What a runtime or a person may send to the first process, for the one that works.
const PASSED_ON: [i32; 6] =
    [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// We are the child of a first process of ours.
static HAS_SPLIT: AtomicBool = AtomicBool::new(false);

pub(super) fn has_split() -> bool {
    HAS_SPLIT.load(Ordering::Relaxed)
}

/// In the first process of a pid namespace: comes back in a child of it as `None`, and in the first
/// process itself with the child's end. Anywhere else, `None` at once. To be called while there is one
/// thread.
pub fn split_if_first() -> Option<ExitCode> {
    if getpid() != Pid::INIT {
        return None;
    }
    split().unwrap_or_else(|error| {
        eprintln!("nix-csi: {error}");
        Some(ExitCode::from(SETUP_FAILED))
    })
}

fn split() -> Result<Option<ExitCode>, SetupError> {
    let mut all = PASSED_ON.to_vec();
    all.push(libc::SIGCHLD);
    let signals = sys::signals(&all).map_err(setup("wait for", "signals"))?;
    match sys::fork().map_err(setup("fork", "from the first process"))? {
        Forked::Child => {
            drop(signals);
            sys::unblock_signals();
            HAS_SPLIT.store(true, Ordering::Relaxed);
            // Nothing of a container outlives its first process; this says so where the namespace is
            // not a container's.
            set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(setup("ask for", "the first process's end"))?;
            Ok(None)
        }
        Forked::Parent(child) => {
            let _ = rustix::thread::set_name(c"nix-csi-init");
            // Who works is of the same user, which is all that it takes to pass signals on.
            let _ = capabilities::keep_only(capabilities::NOTHING);
            Ok(Some(wait_for_all(child, &signals)))
        }
    }
}

fn wait_for_all(child: Pid, signals: &OwnedFd) -> ExitCode {
    loop {
        if let Some(status) = children::reap(child) {
            return children::as_it_ended(status);
        }
        let _ = poll(&mut [PollFd::new(signals, PollFlags::IN)], None);
        for number in supervise::signals_that_came(signals) {
            if let Some(signal) = Signal::from_named_raw(number).filter(|s| *s != Signal::CHILD) {
                let _ = kill_process(child, signal);
            }
        }
    }
}
