//! Ends the Nix processes that a killed driver left. Nobody waits for them any more, and a build
//! among them would hold its output's lock and its slot for as long as it likes.
//!
//! Ours are those with our home and state directory in their environment: commands, a daemon and
//! its workers. Builders have an environment of Nix's making; they end with what started them.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};

use super::{Config, RealNix};

/// For Nix to end its builders and remove what they left; longer than a guard's own.
const GRACE: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(20);

impl RealNix {
    /// For the start, before any command of this process; how many there were.
    pub async fn end_leftovers(&self) -> usize {
        let marks = marks(self.config());
        let count = signal(&marks, Signal::TERM);
        let end = Instant::now() + GRACE;
        while !find(&marks).is_empty() {
            if Instant::now() >= end {
                signal(&marks, Signal::KILL);
                break;
            }
            sleep(POLL).await;
        }
        count
    }
}

fn marks(config: &Config) -> [Vec<u8>; 2] {
    let mark = |name: &str, value: &std::path::Path| {
        [name.as_bytes(), value.as_os_str().as_encoded_bytes()].concat()
    };
    [mark("HOME=", &config.home), mark("NIX_STATE_DIR=", &config.state_dir)]
}

fn signal(marks: &[Vec<u8>], signal: Signal) -> usize {
    let found = find(marks);
    // One that has ended meanwhile is as wanted.
    found.iter().filter(|process| pidfd_send_signal(process, signal).is_ok()).count()
}

/// Handles of the marked processes. An unreadable environment is not ours: we are root.
fn find(marks: &[Vec<u8>]) -> Vec<OwnedFd> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids =
        entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
    let others = pids.filter(|pid| *pid != getpid());
    others.filter_map(|pid| marked(pid, marks)).collect()
}

fn marked(pid: Pid, marks: &[Vec<u8>]) -> Option<OwnedFd> {
    // First the handle, then the look: what the handle names can't change any more.
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    // That of a zombie is empty.
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    let has = |mark: &Vec<u8>| environment.split(|b| *b == 0).any(|entry| entry == mark);
    marks.iter().all(has).then_some(handle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[tokio::test]
    async fn only_what_has_our_marks_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let nix = RealNix::open(Config::new(dir.path()));
        let sleeper = |home: &std::path::Path| {
            let mut command = tokio::process::Command::new("sleep");
            command.arg("1000").env("HOME", home).env("NIX_STATE_DIR", &nix.config().state_dir);
            command.kill_on_drop(true).spawn().unwrap()
        };
        let (mut ours, mut other) = (sleeper(dir.path()), sleeper(&dir.path().join("x")));
        // A child has its environment only after its exec, which spawn waits for.
        let (count, ended) = tokio::join!(nix.end_leftovers(), ours.wait());
        assert_eq!((count, ended.unwrap().signal()), (1, Some(15)));
        assert!(other.try_wait().unwrap().is_none());
        assert_eq!(nix.end_leftovers().await, 0);
    }
}
