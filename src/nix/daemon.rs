//! How a `nix-daemon` of our own is started, known to be ready, and ended when a killed driver
//! left one behind. Who supervises it is elsewhere.
//!
//! The socket is ours and outlives each daemon: who connects between two of them waits.
//!
//! The daemon does not die with a killed driver: PR_SET_PDEATHSIG acts on the death of the *thread*
//! that started the child, and a runtime's threads come and go. Instead each start first ends the
//! daemon that [`PidFile`] names, if it is still that one. Its workers notice and end themselves.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::jail::{Guard, capabilities};
use crate::read::{SMALL, text_at_most};

use super::child::patiently;
use super::command::{CommandSpec, base_env, conf_env, pairs, push_options};
use super::error::io_error;
use super::{ChildSpec, Config, NixError, Readiness};

const POLL: Duration = Duration::from_millis(20);
/// For a daemon to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// The command of a daemon that serves `config.daemon_socket` (required) on the local store. A guarded one
/// is given the socket, another makes it.
pub fn daemon_command(config: &Config) -> Option<CommandSpec> {
    let socket = config.daemon_socket.as_ref()?;
    let mut args = Vec::new();
    push_options(
        &mut args,
        [("sandbox-fallback", "false"), ("trusted-users", &*config.trusted_users)].into_iter(),
    );
    push_options(&mut args, pairs(&config.nix_options));
    let mut env: Vec<(OsString, OsString)> = base_env(&config.home, &config.search_path);
    env.push(("NIX_STATE_DIR".into(), config.state_dir.clone().into()));
    env.push(("NIX_REMOTE".into(), "local".into()));
    env.extend(conf_env(config));
    env.push(("NIX_DAEMON_SOCKET_PATH".into(), socket.clone().into()));
    env.extend(config.environment.iter().cloned());
    let guard = Guard {
        grace: GRACE,
        ends_orphans: true,
        listens: true,
        yields: true,
        keeps: config.keeps(capabilities::DAEMON),
        ..Guard::default()
    };
    Some(CommandSpec {
        program: config.program.with_file_name("nix-daemon"),
        args,
        env,
        directory: config.home.clone(),
        guard: config.guard.clone().map(|binary| (binary, guard)),
    })
}

/// A connection per command, and the one that only looks whether it is ready, are no news.
const ROUTINE: &[&str] = &["accepted connection from", "unexpected end-of-file"];

/// Blocking. A child that serves `config.daemon_socket`; `None` without one.
pub fn spec(config: &Config, pid_file: PathBuf) -> Result<Option<ChildSpec>, NixError> {
    let (Some(socket), Some(command)) = (&config.daemon_socket, daemon_command(config)) else {
        return Ok(None);
    };
    prepare_socket(socket)?;
    let listener = config.guard.as_ref().map(|_| listen(socket));
    let listener = listener.transpose().map_err(|err| io_error("listen at", socket, err))?;
    let ready = Readiness::Greets(socket.clone());
    Ok(Some(ChildSpec {
        name: "nix-daemon",
        command,
        listener: listener.map(Arc::new),
        pid_file,
        ready,
        routine: ROUTINE,
    }))
}

/// Connections that may wait for a daemon.
const BACKLOG: i32 = 1024;

/// For everybody to connect to, as Nix makes it: the daemon looks who it is.
fn listen(socket: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(socket) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = OwnedFd::from(UnixListener::bind(socket)?);
    rustix::net::listen(&listener, BACKLOG)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// Blocking. Makes the socket's directory.
pub fn prepare_socket(socket: &Path) -> Result<(), NixError> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(|err| io_error("create", dir, err))
}

/// What begins Nix's protocol, from the client and from the daemon (worker-protocol.hh).
const MAGIC: [u64; 2] = [0x6e69_7863, 0x6478_696f];

/// Waits until a daemon greets at the socket's path: the kernel accepts connections without one.
pub async fn ready(socket: &Path, limit: Duration) -> Result<(), NixError> {
    let greeted = patiently(limit, || greeting(socket)).await;
    greeted.map_err(|err| io_error("connect to", socket, err))
}

async fn greeting(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&MAGIC[0].to_le_bytes()).await?;
    let is_nix = stream.read_u64_le().await? == MAGIC[1];
    if is_nix { Ok(()) } else { Err(io::Error::other("what answers is no nix-daemon")) }
}

/// Remembers which process is ours, across a restart of the driver.
pub struct PidFile(PathBuf);

/// A process id alone may be another's by now; with the time of its start it is one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) pid: i32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat`.
    pub(super) start: u64,
}

impl PidFile {
    /// The file should lie on a file system that a reboot empties.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Blocking. Remembers a child that has just been started; nothing of one that has ended.
    pub fn write(&self, pid: u32) -> Result<(), NixError> {
        let write = || {
            let pid = i32::try_from(pid).map_err(io::Error::other)?;
            let Some(start) = start_time(pid)? else {
                return Ok(());
            };
            let staged = self.0.with_extension("new");
            fs::write(&staged, format!("{pid} {start}\n"))?;
            fs::rename(&staged, &self.0)
        };
        write().map_err(|err| io_error("write", &self.0, err))
    }

    /// Ends the remembered process if it is still that one; `true` if there was one to end.
    pub async fn end_leftover(&self) -> Result<bool, NixError> {
        let text = match text_at_most(&self.0, SMALL) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(err) => return Err(io_error("read", &self.0, err)),
        };
        let ended = match parse(&text) {
            Some(identity) => {
                end(identity).await.map_err(|err| io_error("end the process in", &self.0, err))?
            }
            None => false, // cut short by a crash: nothing is known, nothing is ended
        };
        fs::remove_file(&self.0).map_err(|err| io_error("remove", &self.0, err))?;
        Ok(ended)
    }
}

fn parse(text: &str) -> Option<Identity> {
    let (pid, start) = text.trim().split_once(' ')?;
    Some(Identity { pid: pid.parse().ok()?, start: start.parse().ok()? })
}

async fn end(identity: Identity) -> io::Result<bool> {
    let Some(pid) = Pid::from_raw(identity.pid) else {
        return Ok(false);
    };
    // First the handle, then the check: what the handle names can't change any more.
    let handle = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        // There is no such process, or the number is a thread's: in another container numbers begin
        // anew. For the latter pidfd_open(2) has EINVAL; newer kernels say ENOENT.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => return Ok(false),
        Err(err) => return Err(err.into()),
    };
    if start_time(identity.pid)? != Some(identity.start) {
        return Ok(false);
    }
    pidfd_send_signal(&handle, Signal::TERM)?;
    let gone = async {
        while matches!(start_time(identity.pid), Ok(Some(start)) if start == identity.start) {
            sleep(POLL).await;
        }
    };
    // A guard kills what is left after its own grace, and must live to do so.
    if timeout(2 * GRACE, gone).await.is_err() {
        pidfd_send_signal(&handle, Signal::KILL)?;
    }
    Ok(true)
}

/// `None`: there is no such process, or it has ended and nobody has waited for it.
pub(super) fn start_time(pid: i32) -> io::Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
        // ESRCH: it ended between open and read.
        Err(err) if err.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(err) => return Err(err),
    };
    start_in(&stat)
}

/// What a `stat` says; `None` of one that has ended. The name in parentheses may hold anything, so fields are
/// counted from its end.
fn start_in(stat: &str) -> io::Result<Option<u64>> {
    let (_, rest) = stat.rsplit_once(") ").ok_or(io::ErrorKind::InvalidData)?;
    let mut fields = rest.split(' ');
    if fields.next() == Some("Z") {
        return Ok(None);
    }
    let start = fields.nth(18).and_then(|field| field.parse().ok());
    start.map(Some).ok_or(io::ErrorKind::InvalidData.into())
}

/// A process's name, which it may choose, an empty line, and the rest: whom we end is told by the kernel alone.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = crate::fuzz::text(data);
    let (name, rest) = text.split_once("\n\n").unwrap_or((&text, "S 1 7 7 0 -1 4194560 1"));
    let numbers = rest.split(' ').skip(1).map_while(|field| field.parse::<u64>().ok());
    let numbers: Vec<_> = numbers.take(18).chain([0; 18]).take(18).collect();
    let numbers = numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    for state in ["S", "Z"] {
        let stat = format!("12 ({name}) {state} {numbers} 4711 0\n");
        let start = (state == "S").then_some(4711);
        assert_eq!(start_in(&stat).ok(), Some(start), "{stat:?}");
        assert_eq!(
            super::workers::parent_in(&stat),
            numbers.split(' ').next().and_then(|first| first.parse().ok())
        );
    }
    if let Some(identity) = parse(&text) {
        let again = format!("{} {}\n", identity.pid, identity.start);
        assert_eq!(parse(&again), Some(identity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_serves_the_socket_on_the_local_store() {
        let mut config = Config::new("/home");
        assert_eq!(daemon_command(&config), None);
        config.daemon_socket = Some("/run/n/s".into());
        config.nix_options = vec![("max-jobs".into(), "4".into())];
        let spec = daemon_command(&config).unwrap();
        assert_eq!(spec.program, Path::new("nix-daemon"));
        let expected = [
            "--option",
            "sandbox-fallback",
            "false",
            "--option",
            "trusted-users",
            "root",
            "--option",
            "max-jobs",
            "4",
        ];
        assert_eq!(spec.args, expected);
        let has = |k: &str, v: &str| spec.env.contains(&(k.into(), v.into()));
        assert!(has("NIX_DAEMON_SOCKET_PATH", "/run/n/s") && has("NIX_REMOTE", "local"));
    }

    #[tokio::test]
    async fn only_our_own_leftover_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let file = PidFile::new(dir.path().join("pid"));
        assert!(!file.end_leftover().await.unwrap());

        let mut child = tokio::process::Command::new("sleep");
        let mut child = child.arg("1000").kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        file.write(pid).unwrap();
        let text = fs::read_to_string(&file.0).unwrap();
        let Identity { pid, start } = parse(&text).unwrap();
        // Another process that got the same number.
        fs::write(&file.0, format!("{pid} {}", start + 1)).unwrap();
        assert!(!file.end_leftover().await.unwrap());
        assert!(child.try_wait().unwrap().is_none());

        // A thread's.
        let (told, thread) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || {
            told.send(rustix::thread::gettid().as_raw_nonzero()).unwrap();
            ended.recv().unwrap_err();
        });
        fs::write(&file.0, format!("{} {start}", thread.recv().unwrap())).unwrap();
        assert!(!file.end_leftover().await.unwrap());
        drop(end);
        other.join().unwrap();

        fs::write(&file.0, "12").unwrap();
        assert!(!file.end_leftover().await.unwrap());
        fs::write(&file.0, text).unwrap();
        assert!(file.end_leftover().await.unwrap());
        assert!(!child.wait().await.unwrap().success());
        assert!(!file.0.try_exists().unwrap());
    }

    #[tokio::test]
    async fn readiness_is_a_greeting() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/s");
        let error = ready(&socket, Duration::ZERO).await.unwrap_err();
        assert!(error.to_string().starts_with("can't connect to "));
        prepare_socket(&socket).unwrap();
        let listener = listen(&socket).unwrap();
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o666);
        // It accepts, and nobody is there.
        ready(&socket, Duration::from_millis(100)).await.unwrap_err();
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::UnixListener::from_std(listener).unwrap();
        for (answer, is_ready) in [(MAGIC[0], false), (MAGIC[1], true)] {
            let serve = async {
                loop {
                    let (mut client, _) = listener.accept().await.unwrap();
                    let mut magic = [0; 8];
                    // The one that gave up above is still in the queue.
                    if client.read_exact(&mut magic).await.is_ok() {
                        assert_eq!(u64::from_le_bytes(magic), MAGIC[0]);
                        let _ = client.write_all(&answer.to_le_bytes()).await;
                    }
                }
            };
            let limit = Duration::from_millis(if is_ready { 5000 } else { 200 });
            let done = tokio::select! {
                () = serve => unreachable!("it serves for ever"),
                done = ready(&socket, limit) => done.map_err(|e| e.to_string()),
            };
            match done {
                Ok(()) => assert!(is_ready),
                Err(why) => assert!(!is_ready && why.ends_with("no nix-daemon"), "{why}"),
            }
        }
        // The next start takes the place.
        drop(listen(&socket).unwrap());
    }
}
