//! The guard: our own binary, started again as `nix-csi guard … -- PROGRAM ARGS…`, which runs a
//! program for the driver so that nothing it starts outlives it or the driver, and, if asked, in a
//! jail; and the first process of a container ([`split_if_first`]). A leaf: it knows no other room. `nix` uses it for every command that works for long.
//!
//! - **Lifeline**: its standard input is a pipe whose other end the driver holds. When that closes, as
//!   it does when the driver is killed, everything ends.
//! - **Subreaper**: what the program leaves (a daemon's workers and builders have sessions of their
//!   own) becomes the guard's child, and ends with the program.
//! - **Retirement**: at SIGHUP it ends the program alone, waits for what that has started, and ends then.
//!   So a daemon is replaced whose workers are busy.
//! - **Socket**: a program may find a socket that listens already, so that who connects while there is no
//!   such program waits for the next one.
//! - **Settings**: what the driver writes first becomes the program's standard input, once: secrets
//!   reach a program so, and whatever it evaluates can't read them again.
//! - **Jail**: an unprivileged user in mount, pid, ipc and uts namespaces of its own, whose root holds
//!   only what is bound into it; see `root`. The network is the node's: fetchers need it. With it, TCP
//!   services on loopback are within reach of what a fetcher can say; abstract Unix sockets too, on a
//!   kernel without landlock's scopes (before 6.12).
//! - **Precedence**: a program can yield: whoever else of the same control group wants a processor gets it at
//!   once (SCHED_IDLE of sched(7)). The kernel weighs control groups against each other, so that other pods
//!   gain nothing by it, and take nothing.
//! - **Powers**: what a program keeps of root's (`capabilities`), and system calls (`syscalls`) and files
//!   (`kernel`) that are refused to it. The guard itself keeps what it takes to end its program.
//!
//! A failure to set this up is one line on standard error and the exit code [`SETUP_FAILED`].

pub mod capabilities;
mod children;
mod init;
pub mod kernel;
mod limits;
mod options;
mod root;
mod supervise;
mod sys;
pub mod syscalls;

use capabilities::CapabilitySet;
pub use init::split_if_first;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// sysexits.h, EX_OSERR: the guard itself failed, the program did not run.
pub const SETUP_FAILED: u8 = 71;
/// sysexits.h, EX_USAGE.
const USAGE: u8 = 64;
/// The subcommand, which `--help` does not know.
const GUARD: &str = "guard";
/// Bytes of settings: what a pipe holds without a reader (pipe(7)).
pub const MAX_SETTINGS: usize = 64 << 10;

/// What the guard does for a program.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Guard {
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How many bytes of settings come first on the lifeline.
    pub config_bytes: usize,
    /// A file that becomes the program's standard input instead: for what is more than a pipe holds.
    pub input: Option<PathBuf>,
    /// Ends what a part of the program leaves when it dies, though the program lives: a builder whose
    /// daemon's worker was killed.
    pub ends_orphans: bool,
    /// Its standard output is a listening socket, for the program to find as sd_listen_fds(3) has it.
    pub listens: bool,
    /// It has the processors that nobody else of this container wants.
    pub yields: bool,
    pub limits: Limits,
    /// What the program keeps of our capabilities; `None`: all.
    pub keeps: Option<CapabilitySet>,
    /// Refuses it the system calls of `syscalls` and, outside of a jail, the files of `kernel`.
    pub filtered: bool,
    pub jail: Option<Jail>,
}

/// Limits of each of the program's processes; see setrlimit(2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of private memory (`RLIMIT_DATA`).
    pub data: Option<u64>,
    /// Processes and threads of the user (`RLIMIT_NPROC`).
    pub processes: Option<u64>,
    /// Bytes of a file that it writes (`RLIMIT_FSIZE`).
    pub file: Option<u64>,
}

/// Where and as whom the program runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jail {
    pub uid: u32,
    pub gid: u32,
    /// The user's home in the jail's `/etc/passwd`.
    pub home: PathBuf,
    pub chdir: PathBuf,
    /// Size of `/tmp`.
    pub tmp_bytes: u64,
    pub binds: Vec<Bind>,
}

/// Something that is shown in the jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    pub access: Access,
    /// Outside; a symlink is made again instead of followed.
    pub source: PathBuf,
    /// Inside.
    pub target: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    /// Left out where the source is not there.
    ReadOnlyIfThere,
    Writable,
}

impl Bind {
    pub fn read_only(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { access: Access::ReadOnly, source: source.into(), target: target.into() }
    }

    pub fn read_only_if_there(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { access: Access::ReadOnlyIfThere, source: source.into(), target: target.into() }
    }

    pub fn writable(source: impl Into<PathBuf>, target: impl Into<PathBuf>) -> Self {
        Self { access: Access::Writable, source: source.into(), target: target.into() }
    }
}

impl Default for Guard {
    fn default() -> Self {
        let grace = Duration::from_secs(5);
        let limits = Limits::default();
        Self {
            grace,
            config_bytes: 0,
            input: None,
            ends_orphans: false,
            listens: false,
            yields: false,
            limits,
            keeps: None,
            filtered: false,
            jail: None,
        }
    }
}

impl Guard {
    /// The arguments of our binary that run `program` so.
    pub fn arguments(&self, program: &Path, args: &[OsString]) -> Vec<OsString> {
        let mut all = vec![GUARD.into()];
        options::push(&mut all, self);
        all.extend(["--".into(), program.into()]);
        all.extend_from_slice(args);
        all
    }
}

/// A failed step of the guard's own.
#[derive(Debug, thiserror::Error)]
#[error("can't {verb} {what}: {source}")]
pub struct SetupError {
    verb: &'static str,
    what: String,
    source: std::io::Error,
}

/// `map_err` with what was tried.
fn setup<E: Into<std::io::Error>>(
    verb: &'static str,
    what: impl AsRef<OsStr>,
) -> impl FnOnce(E) -> SetupError {
    let what = what.as_ref().to_string_lossy().into_owned();
    move |source| SetupError { verb, what, source: source.into() }
}

/// Runs as the guard if these are a guard's arguments. To be called before anything else: a guard
/// has one thread. It ends as the program does.
pub fn run_if_asked(args: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1).peekable();
    args.next_if(|first| first == GUARD)?;
    let (guard, program) = match options::parse(args) {
        Ok(parsed) => parsed,
        Err(reason) => {
            eprintln!("nix-csi guard: {reason}");
            return Some(ExitCode::from(USAGE));
        }
    };
    Some(supervise::run(&guard, &program).unwrap_or_else(|error| {
        eprintln!("nix-csi guard: {error}");
        ExitCode::from(SETUP_FAILED)
    }))
}
