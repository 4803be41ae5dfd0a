//! Runs the program and sees to its end, and to that of everything it has started.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Signal, WaitStatus, getpid, kill_process, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, setpgid,
};
use rustix::thread::UnshareFlags;
use tokio::time::Instant;

use super::children::{as_it_ended, children, end_all, end_orphans, reap};
use super::sys::{self, Forked};
use super::{Guard, SETUP_FAILED, SetupError, capabilities, kernel, limits, root, setup};

pub(super) fn run(guard: &Guard, program: &[OsString]) -> Result<ExitCode, SetupError> {
    // Otherwise it is `exe` to ps, after the link that it was started by.
    let _ = rustix::thread::set_name(c"nix-csi-guard");
    limits::no_cores()?;
    sys::close_inherited().map_err(setup("close", "descriptors"))?;
    let listener = guard.listens.then(listener).transpose()?;
    let input = settings(guard)?;
    let signals = sys::signals(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD])
        .map_err(setup("wait for", "signals"))?;
    set_child_subreaper(Some(getpid())).map_err(setup("become", "a subreaper"))?;
    if guard.jail.is_some() {
        // The next child is the first of the new namespace, and all in it end with it.
        sys::unshare(UnshareFlags::NEWPID).map_err(setup("make", "a pid namespace"))?;
    }
    match sys::fork().map_err(setup("fork", "for the program"))? {
        Forked::Child => {
            let error = become_program(guard, program, input, listener.as_ref());
            eprintln!("nix-csi guard: {error}");
            std::process::exit(SETUP_FAILED.into());
        }
        Forked::Parent(child) => {
            drop((input, listener));
            // The child does the same: whoever comes first.
            let _ = setpgid(Some(child), Some(child));
            if guard.keeps.is_some() {
                // Its program is nobody's that a failure would help.
                let _ = capabilities::keep_only(capabilities::WATCH);
            }
            Ok(watch(child, &signals, guard))
        }
    }
}

/// Where a program finds the first socket that it is given: sd_listen_fds(3), SD_LISTEN_FDS_START.
const LISTEN: i32 = 3;

/// Our standard output at its place. Before anything else is opened.
fn listener() -> Result<OwnedFd, SetupError> {
    let fd = fcntl_dupfd_cloexec(io::stdout(), LISTEN).map_err(setup("take", "the socket"))?;
    if fd.as_raw_fd() == LISTEN {
        return Ok(fd);
    }
    Err(setup("take", "the socket")(io::Error::other("its descriptor is in use")))
}

/// A file, or the settings that come first on the lifeline, in a pipe for the program; nothing:
/// `/dev/null`.
fn settings(guard: &Guard) -> Result<Stdio, SetupError> {
    if let Some(input) = &guard.input {
        return Ok(fs::File::open(input).map_err(setup("open", input))?.into());
    }
    if guard.config_bytes == 0 {
        return Ok(Stdio::null());
    }
    let mut bytes = vec![0; guard.config_bytes];
    io::stdin().read_exact(&mut bytes).map_err(setup("read", "the program's settings"))?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(setup("make", "a pipe"))?;
    fs::File::from(writer).write_all(&bytes).map_err(setup("write", "the program's settings"))?;
    if let Some(jail) = &guard.jail {
        // It may be opened by its name in /proc.
        std::os::unix::fs::fchown(&reader, Some(jail.uid), Some(jail.gid))
            .map_err(setup("own", "the program's settings"))?;
    }
    Ok(reader.into())
}

/// Everything between the fork and the exec; comes back only with an error.
fn become_program(
    guard: &Guard,
    program: &[OsString],
    input: Stdio,
    listener: Option<&OwnedFd>,
) -> SetupError {
    let prepare = || {
        sys::unblock_signals();
        let _ = setpgid(None, None);
        if let Some(jail) = &guard.jail {
            // A driver is usually spared, which is inherited. What fills the node's memory goes first,
            // before any pod. Not where it can't be written.
            let _ = fs::write("/proc/self/oom_score_adj", "1000");
            root::enter(jail)?;
        }
        limits::set(&guard.limits)?;
        if guard.yields {
            // After what takes locks of the kernel's, and before it can't. Without it, it only takes more.
            let _ = sys::yield_processors();
        }
        if let Some(kept) = guard.keeps {
            capabilities::keep_only(kept).map_err(setup("drop", "powers (see --privileges)"))?;
        }
        if guard.filtered {
            kernel::refuse(guard.jail.is_some())?;
        }
        // After the user changed, which clears it: prctl(2), PR_SET_PDEATHSIG.
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(setup("ask for", "the guard's end"))?;
        Ok(())
    };
    if let Err(error) = prepare() {
        return error;
    }
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).stdin(input);
    if let Some(listener) = listener {
        if let Err(error) = fcntl_setfd(listener, FdFlags::empty()) {
            return setup("keep", "the socket")(error);
        }
        let own = getpid().as_raw_nonzero().to_string();
        command.env("LISTEN_FDS", "1").env("LISTEN_PID", own).stdout(Stdio::null());
    }
    setup("run", &program[0])(command.exec())
}

/// How often a program's orphans are looked for: nothing tells of a new one.
const LOOK: Duration = Duration::from_secs(1);

/// What a guard is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// The program's life.
    Run,
    /// The program's end, and then that of what it has started, in their own time.
    Retire,
    /// The end of all.
    End,
}

/// Until the program or the driver has ended, and nothing is left.
fn watch(child: Pid, signals: &OwnedFd, guard: &Guard) -> ExitCode {
    let mut watch = Watch {
        program: child,
        guard,
        aim: Aim::Run,
        ended: None,
        kill_at: None,
        kept: vec![child],
        orphans: Vec::new(),
        look_at: Instant::now() + LOOK,
    };
    loop {
        if let Some(code) = watch.reap().or_else(|| watch.wait(signals)) {
            return code;
        }
    }
}

struct Watch<'a> {
    program: Pid,
    guard: &'a Guard,
    aim: Aim,
    /// How the program did that was to retire.
    ended: Option<WaitStatus>,
    kill_at: Option<Instant>,
    /// Whose end is waited for: the program's, and once that has ended, that of what it left.
    kept: Vec<Pid>,
    /// Who is to end at the next look.
    orphans: Vec<Pid>,
    look_at: Instant,
}

impl Watch<'_> {
    /// The end, if all has ended that is waited for.
    fn reap(&mut self) -> Option<ExitCode> {
        let status = reap(self.program).filter(|_| self.ended.is_none());
        if let Some(status) = status.filter(|_| self.aim != Aim::Retire) {
            end_all();
            return Some(as_it_ended(status));
        }
        if status.is_some() {
            let left = children().into_iter().filter(|pid| !self.orphans.contains(pid));
            (self.ended, self.kill_at, self.kept) = (status, None, left.collect());
        }
        self.ended.filter(|_| children().is_empty()).map(as_it_ended)
    }

    /// Until something happens; the end, if it is time for it.
    fn wait(&mut self, signals: &OwnedFd) -> Option<ExitCode> {
        let lifeline = io::stdin();
        let mut ready = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(lifeline.as_fd(), PollFlags::IN),
        ];
        let until = |at: Instant| at.saturating_duration_since(Instant::now());
        let left = self.kill_at.map(until);
        // What the program leaves when it has retired is not told from orphans before its end is seen.
        let looks = self.guard.ends_orphans && (self.aim != Aim::Retire || self.ended.is_some());
        let look = looks.then(|| until(self.look_at));
        let timeout = left.into_iter().chain(look).min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let _ = poll(&mut ready, timeout.as_ref());
        // Also while there is always something new: an orphan that ends is.
        if looks && Instant::now() >= self.look_at {
            self.orphans = end_orphans(&self.kept, &self.orphans);
            self.look_at = Instant::now() + LOOK;
        }
        let told = ready.map(|fd| !fd.revents().is_empty());
        let is_over =
            told[1] && !matches!(rustix::io::read(lifeline.as_fd(), &mut [0; 64]), Ok(1..));
        if is_over || self.is_late() {
            end_all();
            return Some(ExitCode::from(SETUP_FAILED));
        }
        if told[0] {
            self.hear(&signals_that_came(signals));
        }
        None
    }

    /// Whether the time of all is over; of a program that was to retire, it is killed alone.
    fn is_late(&mut self) -> bool {
        if self.kill_at.is_none_or(|at| Instant::now() < at) {
            return false;
        }
        if self.aim == Aim::Retire {
            let _ = kill_process(self.program, Signal::KILL);
            self.kill_at = None;
        }
        self.aim == Aim::End
    }

    fn hear(&mut self, signals: &[i32]) {
        let next = signals.iter().fold(self.aim, |aim, signal| match *signal {
            libc::SIGHUP if aim == Aim::Run => Aim::Retire,
            libc::SIGCHLD | libc::SIGHUP => aim,
            _ => Aim::End,
        });
        if next != self.aim {
            self.aim = next;
            self.kill_at = Some(Instant::now() + self.guard.grace);
            ask_to_end(self.program, next, self.ended.is_some());
        }
    }
}

/// The program, with its group if all is to end; what it left, if it has ended.
fn ask_to_end(program: Pid, aim: Aim, has_ended: bool) {
    if has_ended {
        for pid in children() {
            let _ = kill_process(pid, Signal::TERM);
        }
    } else if aim == Aim::End {
        let _ = kill_process_group(program, Signal::TERM);
    } else {
        let _ = kill_process(program, Signal::TERM);
    }
}

/// Takes the signals that have come.
pub(super) fn signals_that_came(signals: &OwnedFd) -> Vec<i32> {
    let mut record = [0; sys::SIGNAL_RECORD];
    let mut came = Vec::new();
    while let Ok(n @ 4..) = rustix::io::read(signals, &mut record) {
        // signalfd(2): `ssi_signo` comes first.
        came.extend(record[..n].first_chunk().map(|bytes| i32::from_ne_bytes(*bytes)));
    }
    came
}
