//! The guard's children: its program, and what became its own because whoever started it has ended.

use std::fs;
use std::process::ExitCode;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, wait};

use super::sys;

/// Waits for everybody who has ended; how the program did, if it was among them.
pub(super) fn reap(child: Pid) -> Option<WaitStatus> {
    let mut ended = None;
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            ended = Some(status);
        }
    }
    ended
}

/// Ends our children that were there at the last look, but for those that are kept; those that are new.
/// What ends by itself has the time between two looks.
pub(super) fn end_orphans(kept: &[Pid], before: &[Pid]) -> Vec<Pid> {
    let orphans: Vec<_> = children().into_iter().filter(|pid| !kept.contains(pid)).collect();
    for orphan in orphans.iter().filter(|pid| before.contains(pid)) {
        let _ = kill_process(*orphan, Signal::KILL);
    }
    orphans
}

/// Kills our children until there are none: a killed one's children become ours.
pub(super) fn end_all() {
    loop {
        match wait(WaitOptions::NOHANG) {
            Err(_) => return, // ECHILD
            Ok(Some(_)) => {}
            Ok(None) => {
                for pid in children() {
                    let _ = kill_process(pid, Signal::KILL);
                }
                let _ = wait(WaitOptions::empty());
            }
        }
    }
}

/// Processes whose parent we are. A kernel without `CONFIG_PROC_CHILDREN` has them only as field 4 of
/// each `/proc/<pid>/stat`.
pub(super) fn children() -> Vec<Pid> {
    let own = getpid().as_raw_nonzero().to_string();
    if let Ok(list) = fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        let numbers = list.split_whitespace();
        return numbers.filter_map(|n| Pid::from_raw(n.parse().ok()?)).collect();
    }
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let is_ours = |name: &str| {
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&own)
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers = names.filter(|name| name.bytes().all(|c| c.is_ascii_digit()));
    numbers.filter(|name| is_ours(name)).filter_map(|n| Pid::from_raw(n.parse().ok()?)).collect()
}

/// Ends the same way, so that whoever started us sees the program's end.
pub(super) fn as_it_ended(status: WaitStatus) -> ExitCode {
    if let Some(signal) = status.terminating_signal() {
        sys::unblock_signals();
        sys::die_of(signal);
        // A signal that does not end us: as shells show it.
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    let code = status.exit_status().unwrap_or_default();
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
