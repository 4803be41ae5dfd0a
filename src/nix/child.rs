//! A running `nix-daemon` of our own: its process, and its log lines in ours.

use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin};

use super::daemon::{PidFile, daemon_command, prepare_socket, ready};
use super::text::clean;
use super::{Config, NixError};

/// For a new daemon to accept connections.
const READY: Duration = Duration::from_secs(30);
/// Bytes of one forwarded log line.
const LINE: u64 = 2000;

/// What it takes to run a daemon; cheap enough to clone for each start.
#[derive(Debug, Clone)]
pub struct DaemonSpec {
    config: Config,
    pid_file: std::path::PathBuf,
}

impl DaemonSpec {
    /// `config.daemon_socket` is where the daemon will listen; `pid_file` should lie where a reboot
    /// empties it.
    pub fn new(config: Config, pid_file: std::path::PathBuf) -> Self {
        Self { config, pid_file }
    }

    /// Ends what an earlier driver left, then starts.
    pub async fn start(&self) -> Result<RunningDaemon, NixError> {
        let pid_file = PidFile::new(&self.pid_file);
        if pid_file.end_leftover().await? {
            tracing::info!("ended the nix-daemon of an earlier start");
        }
        let spec = daemon_command(&self.config).ok_or_else(|| NixError::Command {
            what: "starting nix-daemon".to_owned(),
            detail: "no socket is configured for it".to_owned(),
        })?;
        if let Some(socket) = &self.config.daemon_socket {
            prepare_socket(socket)?;
        }
        let mut command = spec.command();
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().map_err(|source| NixError::Spawn {
            program: spec.program.display().to_string(),
            source,
        })?;
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(forward(stderr));
        }
        if let Some(pid) = child.id()
            && let Err(error) = pid_file.write(pid)
        {
            // Nobody would find it again.
            drop(child.kill().await);
            return Err(error);
        }
        let lifeline = child.stdin.take();
        Ok(RunningDaemon { child, _lifeline: lifeline })
    }

    /// Waits until the daemon accepts connections.
    pub async fn ready(&self) -> Result<(), NixError> {
        match &self.config.daemon_socket {
            Some(socket) => ready(socket, READY).await,
            None => Ok(()),
        }
    }
}

#[derive(Debug)]
pub struct RunningDaemon {
    child: Child,
    /// The guard ends the daemon, its workers and their builders when this is closed, as it is when we
    /// are killed. Waiting for a child would close its own.
    _lifeline: Option<ChildStdin>,
}

impl RunningDaemon {
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
            tracing::warn!("nix-daemon did not end in time; killed");
            drop(self.child.kill().await);
        }
    }
}

fn describe(status: ExitStatus) -> String {
    format!("ended unexpectedly ({status})")
}

/// A connection per command, and the one that only looks whether it is ready, are no news.
const ROUTINE: [&str; 2] = ["accepted connection from", "unexpected end-of-file"];

fn log(line: &str) {
    if ROUTINE.iter().any(|routine| line.contains(routine)) {
        tracing::debug!(child = "nix-daemon", "{line}");
    } else {
        tracing::info!(child = "nix-daemon", "{line}");
    }
}

/// A line at a time, each bounded, so that no daemon can fill our memory.
async fn forward(stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let text = clean(&String::from_utf8_lossy(&line), line.len());
                log(text.trim_end());
            }
        }
    }
}
