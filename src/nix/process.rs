//! Runs one of Nix's programs: bounded output, and no process left when nobody waits any more.
//!
//! The child leads a process group. Nix ends its workers and builders by itself when it gets
//! SIGTERM, and a daemon those of a client that hangs up; builders have sessions of their own, so
//! killing the group alone would not reach them. Hence first SIGTERM to the group, then SIGKILL; and a
//! worker that does not notice is ended too (`workers`). A guard (see `jail`) does the same when we are
//! killed, and reaches whatever is left.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tracing::Span;

use super::NixError;
use super::command::CommandSpec;
use super::exit::Exit;
use super::redact::Redactor;
use super::text::MAX_LINE_BYTES;
use super::workers;
use crate::trace;

/// A result of `nix build --json` has some 200 bytes.
const MAX_STDOUT: usize = 1 << 20;
/// A builder may print a gigabyte without a newline; the rest of such a line is dropped.
pub(super) const MAX_LINE: usize = 64 << 10;
/// For Nix to end its builders and remove what they left; longer than the guard's own.
const GRACE: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(25);
/// Something that outlives Nix, such as an ssh master, may hold the pipes open.
const DRAIN: Duration = Duration::from_secs(1);

/// How a program ended.
pub(super) struct Ended {
    pub(super) exit: Exit,
    pub(super) stdout: Vec<u8>,
}

/// Runs `spec` to its end and gives each line of stderr to `on_line`. `settings` are for a guarded
/// program's standard input. When the future is dropped the processes are ended, and only then `kept`
/// is dropped.
pub(super) async fn run<K: Send + 'static>(
    spec: &CommandSpec,
    settings: &[u8],
    on_line: impl FnMut(&[u8]),
    kept: K,
) -> Result<(Ended, K), NixError> {
    run_bounded(spec, settings, on_line, kept, MAX_STDOUT).await
}

/// With so many bytes of standard output; the rest is dropped. Arguments may hold secrets, so a trace has none.
async fn run_bounded<K: Send + 'static>(
    spec: &CommandSpec,
    settings: &[u8],
    on_line: impl FnMut(&[u8]),
    kept: K,
    most: usize,
) -> Result<(Ended, K), NixError> {
    let name = spec.program.file_name().unwrap_or_default().to_string_lossy();
    let span = trace::below!("process", otel.name = &*name, process.executable.name = &*name);
    let work = run_in(&span, spec, settings, on_line, kept, most);
    trace::phase(span.clone(), work).await
}

async fn run_in<K: Send + 'static>(
    span: &Span,
    spec: &CommandSpec,
    settings: &[u8],
    on_line: impl FnMut(&[u8]),
    kept: K,
    most: usize,
) -> Result<(Ended, K), NixError> {
    let spawn_error =
        |source| NixError::Spawn { program: spec.program.display().to_string(), source };
    let mut child = spec
        .command()
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map_err(spawn_error)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    if let Some(pid) = child.id() {
        trace::set(span, "process.pid", i64::from(pid));
    }
    let lifeline = child.stdin.take();
    let mut running = Running { lifeline, process: Some((child, kept)) };
    running.give(settings).await;
    let mut captured = Vec::new();
    let status = {
        let read = async {
            tokio::join!(
                async {
                    if let Some(pipe) = stdout {
                        read_bounded(pipe, &mut captured, most).await;
                    }
                },
                async {
                    if let Some(pipe) = stderr {
                        read_lines(pipe, on_line).await;
                    }
                }
            )
        };
        tokio::pin!(read);
        let wait = running.wait();
        tokio::pin!(wait);
        tokio::select! {
            biased;
            _ = &mut read => wait.await,
            status = &mut wait => {
                let _ = tokio::time::timeout(DRAIN, read).await;
                status
            }
        }
    }
    .map_err(spawn_error)?;
    let Some((_, kept)) = running.process.take() else {
        unreachable!("only this function and the drop take it")
    };
    let ended = Ended { exit: status.into(), stdout: captured };
    if let Exit::Code(code) = ended.exit {
        trace::set(span, "process.exit.code", i64::from(code));
    }
    if !ended.exit.is_ok() {
        trace::fail(span, &ended.exit);
    }
    Ok((ended, kept))
}

/// Runs a short command and gives its standard output, or an error with what it said.
pub(super) async fn output(spec: &CommandSpec, what: &str) -> Result<Vec<u8>, NixError> {
    output_up_to(spec, what, MAX_STDOUT).await
}

/// The same where it must be whole: an error, too, if there is more than `most` bytes.
pub(super) async fn whole_output(
    spec: &CommandSpec,
    what: &str,
    most: usize,
) -> Result<Vec<u8>, NixError> {
    let output = output_up_to(spec, what, most).await?;
    if output.len() < most {
        return Ok(output);
    }
    let detail = format!("it said more than {most} bytes");
    Err(NixError::Command { what: what.to_owned(), detail })
}

async fn output_up_to(spec: &CommandSpec, what: &str, most: usize) -> Result<Vec<u8>, NixError> {
    let mut last = String::new();
    let keep = |line: &[u8]| {
        if !line.is_empty() {
            let (text, redactor) = (String::from_utf8_lossy(line), Redactor::default());
            last = redactor.shown_cut(&text, line.len() >= MAX_LINE, MAX_LINE_BYTES);
        }
    };
    let (ended, ()) = run_bounded(spec, &[], keep, (), most).await?;
    if ended.exit.is_ok() {
        return Ok(ended.stdout);
    }
    let silent = last.is_empty() || ended.exit.is_of_refused_call();
    let detail = if silent { ended.exit.to_string() } else { last };
    Err(NixError::Command { what: what.to_owned(), detail })
}

/// Where `program` is, as `execvp` would find it, without links: the jail has no links of ours.
pub(super) fn find(program: &Path, search_path: &OsStr) -> PathBuf {
    let found = if program.components().count() > 1 {
        Some(program.to_owned())
    } else {
        let candidates = std::env::split_paths(search_path).map(|dir| dir.join(program));
        candidates.into_iter().find(|path| path.is_file())
    };
    // `nix` may be a link by whose name it acts, such as `nix-store`: only directories are resolved.
    let resolved = found
        .as_deref()
        .and_then(|path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?)));
    resolved.unwrap_or_else(|| program.to_owned())
}

/// A process that is ended when nobody waits for it.
struct Running<K: Send + 'static> {
    /// A guard ends everything when it is closed. Waiting for a child would close its own.
    lifeline: Option<ChildStdin>,
    process: Option<(Child, K)>,
}

impl<K: Send + 'static> Running<K> {
    /// A guard that does not read has ended, and says why by its exit code.
    async fn give(&mut self, settings: &[u8]) {
        if let Some(lifeline) = &mut self.lifeline {
            let _ = lifeline.write_all(settings).await;
        }
    }

    async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        match &mut self.process {
            Some((child, _)) => child.wait().await,
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }
}

impl<K: Send + 'static> Drop for Running<K> {
    fn drop(&mut self) {
        let Some((mut child, kept)) = self.process.take() else {
            return;
        };
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            return; // already waited for
        };
        let clients = workers::children(pid);
        // ESRCH only; there is nobody to tell.
        let _ = kill_process_group(pid, Signal::TERM);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            let _ = kill_process_group(pid, Signal::KILL);
            return;
        };
        let lifeline = self.lifeline.take();
        runtime.spawn(async move {
            let _ = tokio::time::timeout(GRACE, exited(pid)).await;
            // The leader is not waited for yet, so that the group's number can't be another's.
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = child.wait().await;
            drop(lifeline);
            workers::end_those_of(clients).await;
            // May remove files: not on the thread of the actors.
            let _ = tokio::task::spawn_blocking(move || drop(kept)).await;
        });
    }
}

/// Until the process has ended, leaving it to be waited for.
async fn exited(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while let Ok(None) = waitid(WaitId::Pid(pid), options) {
        tokio::time::sleep(POLL).await;
    }
}

async fn read_bounded(mut pipe: impl AsyncRead + Unpin, captured: &mut Vec<u8>, most: usize) {
    let mut chunk = vec![0; 8192];
    while let Ok(n @ 1..) = pipe.read(&mut chunk).await {
        let room = most.saturating_sub(captured.len());
        captured.extend_from_slice(&chunk[..n.min(room)]);
    }
}

pub(super) async fn read_lines(pipe: impl AsyncRead + Unpin, mut on_line: impl FnMut(&[u8])) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        let (used, at_end) = match reader.fill_buf().await {
            Ok([]) | Err(_) => break,
            Ok(chunk) => {
                let newline = chunk.iter().position(|c| *c == b'\n');
                let part = &chunk[..newline.unwrap_or(chunk.len())];
                let room = MAX_LINE.saturating_sub(line.len());
                line.extend_from_slice(&part[..part.len().min(room)]);
                (part.len() + usize::from(newline.is_some()), newline.is_some())
            }
        };
        reader.consume(used);
        if at_end {
            on_line(&line);
            line.clear();
        }
    }
    if !line.is_empty() {
        on_line(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(program: &str, args: &[&str]) -> CommandSpec {
        CommandSpec {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            directory: "/".into(),
            guard: None,
        }
    }

    #[tokio::test]
    async fn lines_and_output_are_bounded() {
        let mut lines = Vec::new();
        let script = "head -c 3000000 /dev/zero; echo a >&2; head -c 200000 /dev/zero >&2; \
                      echo >&2; echo -n end >&2; exit 3";
        let on_line = |line: &[u8]| lines.push(line.len());
        let (ended, kept) = run(&spec("sh", &["-c", script]), &[], on_line, 7).await.unwrap();
        assert_eq!((ended.exit, kept), (Exit::Code(3), 7));
        assert_eq!(ended.stdout.len(), MAX_STDOUT);
        assert_eq!(lines, [1, MAX_LINE, 3]);
    }

    #[tokio::test]
    async fn dropping_ends_the_whole_group_and_then_what_was_kept() {
        let (sender, dropped) = tokio::sync::oneshot::channel::<()>();
        let mut pids = Vec::new();
        // A grandchild that ignores SIGTERM, and so does the leader for a moment.
        let script = "trap '' TERM; sleep 1000 & echo $! >&2; echo $$ >&2; trap 'exit 0' TERM; \
                      wait";
        {
            let (told, mut ready) = tokio::sync::mpsc::unbounded_channel();
            let on_line = |line: &[u8]| told.send(String::from_utf8(line.to_vec())).unwrap();
            let spec = spec("sh", &["-c", script]);
            let running = run(&spec, &[], on_line, sender);
            tokio::pin!(running);
            while pids.len() < 2 {
                tokio::select! {
                    _ = &mut running => panic!("it waits"),
                    line = ready.recv() => pids.push(line.unwrap().unwrap().parse().unwrap()),
                }
            }
        }
        dropped.await.unwrap_err();
        let mut again = tokio::time::interval(std::time::Duration::from_millis(10));
        for pid in pids {
            let _: i32 = pid;
            // A grandchild is another's to wait for: a zombie is dead enough. One that was just
            // killed may take a moment to become one.
            let alive = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                !(stat.is_empty() || stat.contains(") Z "))
            };
            for _ in 0..300 {
                if !alive() {
                    break;
                }
                again.tick().await;
            }
            assert!(!alive(), "{pid} is still there");
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = output(&spec("/nonexistent/nix", &[]), "nix").await.unwrap_err();
        assert!(error.to_string().starts_with("can't run /nonexistent/nix: "));
        let error = output(&spec("sh", &["-c", "echo why >&2; exit 1"]), "it").await;
        assert_eq!(error.unwrap_err().to_string(), "it failed: why");
        let error = output(&spec("sh", &["-c", "kill -SYS $$"]), "it").await.unwrap_err();
        assert!(error.to_string().contains("--privileges all"), "{error}");
    }
}
