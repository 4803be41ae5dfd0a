//! Workers of our nix-daemon that did not hear that their client has gone. Nix tells a worker by a signal; to
//! one that is about to wait for its builder it comes too early, and that one waits for as long as its builder
//! runs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use tokio::time::{sleep, timeout};

use super::daemon::{Identity, start_time};

/// For a worker to end by itself.
const GRACE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(25);

/// Of a guard: its program, which is the daemon's client.
pub(super) fn children(of: Pid) -> Vec<i32> {
    let of = of.as_raw_nonzero();
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Ends what still works for clients that have just ended. The guard of the daemon ends their builders.
pub(super) async fn end_those_of(clients: Vec<i32>) {
    let found = tokio::task::spawn_blocking(move || serving(&clients)).await.unwrap_or_default();
    let gone = async {
        while found.iter().any(|worker| is_there(*worker)) {
            sleep(POLL).await;
        }
    };
    if timeout(GRACE, gone).await.is_ok() {
        return;
    }
    for worker in found {
        // First the handle, then the check: what the handle names can't change any more.
        let handle = Pid::from_raw(worker.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
        if let Some(Ok(handle)) = handle
            && is_there(worker)
        {
            tracing::warn!(pid = worker.pid, "a worker of nix-daemon outlived its client: ended");
            let _ = pidfd_send_signal(&handle, Signal::KILL); // it may have ended
        }
    }
}

fn is_there(worker: Identity) -> bool {
    matches!(start_time(worker.pid), Ok(Some(start)) if start == worker.start)
}

/// Blocking. A worker has its client's number as its first argument.
fn serving(clients: &[i32]) -> Vec<Identity> {
    if clients.is_empty() {
        return Vec::new();
    }
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let workers = pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        serves(&line).is_some_and(|client| clients.contains(&client)) && is_ours(*pid)
    });
    let identity = |pid| Some(Identity { pid, start: start_time(pid).ok()?? });
    workers.filter_map(identity).collect()
}

/// Whom, by a worker's arguments.
fn serves(line: &[u8]) -> Option<i32> {
    let mut args = line.split(|byte| *byte == 0).map(|arg| str::from_utf8(arg).unwrap_or_default());
    let program = Path::new(args.next()?).file_name()?;
    (program == "nix-daemon").then(|| args.next()?.parse().ok()).flatten()
}

/// A lent daemon's workers are somebody else's. Above ours are its daemon, unless that has ended, and a guard.
fn is_ours(worker: i32) -> bool {
    let us = getpid().as_raw_nonzero().get();
    std::iter::successors(parent(worker), |pid| parent(*pid)).take(3).any(|pid| pid == us)
}

fn parent(of: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{of}/stat")).ok()?;
    parent_in(&stat)
}

pub(super) fn parent_in(stat: &str) -> Option<i32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_known_by_its_clients_number() {
        assert_eq!(serves(b"nix-daemon\x001081\0\0\0\0\0sandbox-fallback\0"), Some(1081));
        assert_eq!(serves(b"/usr/bin/nix-daemon\x0022\0"), Some(22));
        for other in [&b"nix-daemon\0--option\0"[..], b"nix-daemon\0", b"", b"sleep\x0022\0"] {
            assert_eq!(serves(other), None);
        }
        let own = getpid();
        assert!(parent(own.as_raw_nonzero().get()).is_some());
        assert!(serving(&[own.as_raw_nonzero().get()]).is_empty());
    }
}
