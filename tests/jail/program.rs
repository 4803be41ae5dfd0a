//! A program that runs in a guard.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use nix_csi::jail::{Bind, Guard, Jail};
use rustix::process::{Pid, Signal, kill_process};

/// As whom a jailed program runs; not the driver's default, so that nothing relies on that.
pub(crate) const USER: u32 = 30777;
pub(crate) const HOME: &str = "/home/nix-eval";

/// A guard that runs a script.
pub(crate) struct Guarded {
    guard: Child,
    lifeline: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// How it ended, and what it and the guard have said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn command(guard: &Guard, program: &str, args: &[&str]) -> Command {
    let args: Vec<_> = args.iter().map(Into::into).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nix-csi"));
    command.args(guard.arguments(Path::new(program), &args));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Guarded {
    pub(crate) fn start(guard: &Guard, script: &str) -> Self {
        let mut child = command(guard, "/bin/sh", &["-c", script]).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { lifeline: child.stdin.take(), output, guard: child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.guard.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.guard.try_wait().unwrap().is_none()
    }

    /// The next line of the script.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The number of a process that the script says next.
    pub(crate) fn process(&mut self) -> Process {
        Process::new(self.line().parse().unwrap())
    }

    pub(crate) fn give(&mut self, bytes: &[u8]) {
        self.lifeline.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn close_lifeline(&mut self) {
        self.lifeline = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.guard.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for the guard alone. What it leaves may hold its output open.
    pub(crate) fn wait(&mut self) {
        self.guard.wait().unwrap();
    }

    /// Waits for its end, holding the lifeline if it is not closed yet.
    pub(crate) fn end(&mut self) -> Said {
        let status = self.guard.wait().unwrap();
        let mut said = Said { status, out: String::new(), err: String::new() };
        self.output.read_to_string(&mut said.out).unwrap();
        self.guard.stderr.take().unwrap().read_to_string(&mut said.err).unwrap();
        said
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.lifeline = None;
        let _ = self.guard.wait();
    }
}

/// Runs a script to its end.
pub(crate) fn run(guard: &Guard, script: &str) -> Said {
    Guarded::start(guard, script).end()
}

/// One process: its number may be another's once it is gone.
#[derive(Debug)]
pub(crate) struct Process {
    number: u32,
    start: String,
}

impl Process {
    pub(crate) fn new(number: u32) -> Self {
        let (_, start) = stat(number).unwrap_or_else(|| panic!("{number} is not there"));
        Self { number, start }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.number.cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn is_alive(&self) -> bool {
        stat(self.number).is_some_and(|(state, start)| start == self.start && state != "Z")
    }
}

/// State and start time.
fn stat(number: u32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some((fields[0].to_owned(), fields[19].to_owned()))
}

/// The host's processes in the jail whose guard it is, the first one first.
pub(crate) fn children(of: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap();
    list.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// A jail with a shell and its tools in it, and `binds`.
pub(crate) fn jailed(binds: Vec<Bind>) -> Guard {
    let tools =
        ["/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives"];
    let tools = tools.map(|dir| Bind::read_only_if_there(dir, dir));
    let jail = Jail {
        uid: USER,
        gid: USER,
        home: HOME.into(),
        chdir: "/".into(),
        tmp_bytes: 1 << 20,
        binds: tools.into_iter().chain(binds).collect(),
    };
    Guard { jail: Some(jail), ..Guard::default() }
}

/// Whether jails can be made here, or a visible skip.
pub(crate) fn can_jail(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        crate::lab::skipped(test, "needs root");
    }
    is_root
}
