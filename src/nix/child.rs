//! A long-lived child of ours, such as a nix-daemon: its process, and its log lines in ours.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin};
use tokio::time::{Instant, sleep, timeout_at};

use super::daemon::{PidFile, ready};
use super::greeting::is_sshd;
use super::redact::Redactor;
use super::{CommandSpec, NixError};

/// For a new child to serve.
const READY: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
/// Bytes of one forwarded log line.
const LINE: u64 = 2000;

/// What it takes to run a long-lived child; cheap enough to clone for each start.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// The program's name in logs.
    pub name: &'static str,
    pub command: CommandSpec,
    /// For a guard that `listens`.
    pub listener: Option<Arc<OwnedFd>>,
    /// Should lie where a reboot empties it.
    pub pid_file: PathBuf,
    pub ready: Readiness,
    /// Parts of log lines that are no news.
    pub routine: &'static [&'static str],
}

/// What shows that a child serves.
#[derive(Debug, Clone)]
pub enum Readiness {
    /// A nix-daemon greets at the Unix socket at this path.
    Greets(PathBuf),
    /// What listens at this address says that it is an sshd.
    IsSshd(SocketAddr),
}

impl ChildSpec {
    /// Ends what an earlier driver left, then starts.
    pub async fn start(&self) -> Result<RunningChild, NixError> {
        if PidFile::new(&self.pid_file).end_leftover().await? {
            tracing::info!(child = self.name, "ended the process of an earlier start");
        }
        self.start_beside().await
    }

    /// Starts one while another that was started from here still lives; that one is to be
    /// [retired](RunningChild::retire).
    pub async fn start_beside(&self) -> Result<RunningChild, NixError> {
        let program = || self.command.program.display().to_string();
        let failed = |source| NixError::Spawn { program: program(), source };
        let output = match &self.listener {
            Some(listener) => listener.try_clone().map_err(failed)?.into(),
            None => Stdio::null(),
        };
        let mut command = self.command.command();
        command.stdout(output).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward(self.name, self.routine, stderr));
        }
        if let Some(pid) = child.id()
            && let Err(error) = PidFile::new(&self.pid_file).write(pid)
        {
            // Nobody would find it again.
            drop(child.kill().await);
            return Err(error);
        }
        let lifeline = child.stdin.take();
        Ok(RunningChild { name: self.name, child, _lifeline: lifeline })
    }

    /// Waits until it serves.
    pub async fn ready(&self) -> Result<(), NixError> {
        match &self.ready {
            Readiness::Greets(socket) => ready(socket, READY).await,
            Readiness::IsSshd(address) => is_sshd(*address, READY).await,
        }
    }
}

/// Tries until it succeeds or the time is over; then its last word counts, if it ever had one.
pub(super) async fn patiently(
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> io::Result<()>,
) -> io::Result<()> {
    let end = Instant::now() + limit;
    let mut last = io::ErrorKind::TimedOut.into();
    loop {
        match timeout_at(end, attempt()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(_) => {}
        }
        if Instant::now() >= end {
            return Err(last);
        }
        sleep(POLL).await;
    }
}

#[derive(Debug)]
pub struct RunningChild {
    name: &'static str,
    child: Child,
    /// The guard ends the program and all that it started when this is closed, as it is when we are
    /// killed. Waiting for a child would close its own.
    _lifeline: Option<ChildStdin>,
}

impl RunningChild {
    /// Waits for its end; says how it ended.
    pub async fn exited(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => describe(status),
            Err(error) => format!("can't be waited for: {error}"),
        }
    }

    /// Has its guard end the program alone; what that has started goes on. Wait for it, or stop it.
    pub fn retire(&self) {
        self.signal(Signal::HUP);
    }

    /// Asks it to end, and ends it after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!(child = self.name, "it did not end in time; killed");
            drop(self.child.kill().await);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            let _ = kill_process(pid, signal);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    format!("ended unexpectedly ({status})")
}

/// A line at a time, each bounded, and so many of them: no child can fill our memory or the disk's logs.
async fn forward(name: &'static str, routine: &'static [&'static str], stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    let mut flood = Flood::new(Instant::now());
    // The rest of a line that was too long is dropped: a secret may be cut in two.
    let mut is_rest = false;
    loop {
        line.clear();
        match (&mut lines).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return tell_dropped(name, flood.dropped),
            Ok(_) => {
                let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LINE;
                if std::mem::replace(&mut is_rest, !is_whole) {
                    continue;
                }
                let (text, redactor) = (String::from_utf8_lossy(&line), Redactor::default());
                let text = redactor.shown_cut(&text, !is_whole, usize::MAX);
                let text = text.trim_end();
                if routine.iter().any(|part| text.contains(part)) {
                    tracing::debug!(child = name, "{text}");
                    continue;
                }
                let (is_shown, dropped) = flood.admit(Instant::now());
                tell_dropped(name, dropped);
                if is_shown {
                    tracing::info!(child = name, "{text}");
                }
            }
        }
    }
}

fn tell_dropped(child: &'static str, dropped: u64) {
    if dropped > 0 {
        tracing::warn!(child, dropped, "lines of its log were dropped");
    }
}

/// Bounds the lines in each span of time. A daemon whose accept fails says so in a loop without end.
struct Flood {
    since: Instant,
    shown: u32,
    dropped: u64,
}

impl Flood {
    const SPAN: Duration = Duration::from_secs(10);
    const LINES: u32 = 1000;

    fn new(now: Instant) -> Self {
        Self { since: now, shown: 0, dropped: 0 }
    }

    /// Whether the next line is shown, and how many were not in the span that has just ended.
    fn admit(&mut self, now: Instant) -> (bool, u64) {
        let mut dropped = 0;
        if now.duration_since(self.since) >= Self::SPAN {
            dropped = self.dropped;
            *self = Self::new(now);
        }
        let is_shown = self.shown < Self::LINES;
        if is_shown {
            self.shown += 1;
        } else {
            self.dropped += 1;
        }
        (is_shown, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut flood = Flood::new(start);
        let shown = (0..1500).filter(|_| flood.admit(start).0).count();
        assert_eq!(shown, 1000);
        let later = start + Flood::SPAN;
        assert_eq!(flood.admit(later), (true, 500));
        assert_eq!(flood.admit(later), (true, 0));
    }
}
