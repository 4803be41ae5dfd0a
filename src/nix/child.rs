//! A long-lived child of ours, such as a nix-daemon: its process, and its log lines in ours.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin};

use super::daemon::{PidFile, prepare_socket, ready};
use super::sshd::is_sshd;
use super::text::clean;
use super::{CommandSpec, NixError};

/// For a new child to serve.
const READY: Duration = Duration::from_secs(30);
/// Bytes of one forwarded log line.
const LINE: u64 = 2000;

/// What it takes to run a long-lived child; cheap enough to clone for each start.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// The program's name in logs.
    pub name: &'static str,
    pub command: CommandSpec,
    /// Should lie where a reboot empties it.
    pub pid_file: PathBuf,
    pub ready: Readiness,
    /// Parts of log lines that are no news.
    pub routine: &'static [&'static str],
}

/// What shows that a child serves.
#[derive(Debug, Clone)]
pub enum Readiness {
    /// The Unix socket at this path accepts connections.
    Accepts(PathBuf),
    /// What listens at this address says that it is an sshd.
    IsSshd(SocketAddr),
}

impl ChildSpec {
    /// Ends what an earlier driver left, then starts.
    pub async fn start(&self) -> Result<RunningChild, NixError> {
        let pid_file = PidFile::new(&self.pid_file);
        if pid_file.end_leftover().await? {
            tracing::info!(child = self.name, "ended the process of an earlier start");
        }
        if let Readiness::Accepts(socket) = &self.ready {
            prepare_socket(socket)?;
        }
        let mut command = self.command.command();
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().map_err(|source| NixError::Spawn {
            program: self.command.program.display().to_string(),
            source,
        })?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward(self.name, self.routine, stderr));
        }
        if let Some(pid) = child.id()
            && let Err(error) = pid_file.write(pid)
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
            Readiness::Accepts(socket) => ready(socket, READY).await,
            Readiness::IsSshd(address) => is_sshd(*address, READY).await,
        }
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

    /// Asks it to end, and ends it after `grace`.
    pub async fn stop(mut self, grace: Duration) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            tracing::warn!(child = self.name, "it did not end in time; killed");
            drop(self.child.kill().await);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    format!("ended unexpectedly ({status})")
}

/// A line at a time, each bounded, so that no child can fill our memory.
async fn forward(name: &'static str, routine: &'static [&'static str], stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = clean(&String::from_utf8_lossy(&line), line.len());
                let text = text.trim_end();
                if routine.iter().any(|part| text.contains(part)) {
                    tracing::debug!(child = name, "{text}");
                } else {
                    tracing::info!(child = name, "{text}");
                }
            }
        }
    }
}
