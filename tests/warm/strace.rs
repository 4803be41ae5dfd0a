//! The system calls of a node's threads.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::lab::{Lab, Node, signal_inside, unique, wait_for};

/// How often these happen depends on how threads and connections take turns, and `fcntl` is a check that debug builds make
/// of each file descriptor.
const BY_CHANCE: [&str; 22] = [
    "accept4",
    "brk",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_wait",
    "exit",
    "fcntl",
    "futex",
    "getpeername",
    "getsockopt",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "recvfrom",
    "restart_syscall",
    "rseq",
    "rt_sigprocmask",
    "sched_yield",
    "set_robust_list",
    "shutdown",
    "writev",
];

/// What a thread writes to another one's event counter.
const WAKES: &str = r#""\1\0\0\0\0\0\0\0", 8"#;

pub struct Strace {
    child: Child,
    file: PathBuf,
}

#[derive(Default)]
pub struct Calls {
    counts: BTreeMap<String, usize>,
    /// Each call that made a process or became another program.
    pub processes: Vec<String>,
}

impl Strace {
    /// From when all threads are followed; why not where it can't be had.
    pub fn of(lab: &Lab, node: &Node) -> Result<Self, String> {
        let file = lab.path(&format!("strace-{}", unique()));
        let pid = node.pid();
        let mut child = Command::new("strace")
            .args(["--follow-forks", "--quiet=attach,exit", "-o"])
            .arg(&file)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| {
                format!("strace: {error}: scripts/install-nix.sh strace installs it")
            })?;
        wait_for("strace", || {
            assert!(child.try_wait().unwrap().is_none(), "strace could not follow the node");
            all_followed(pid)
        });
        Ok(Self { child, file })
    }

    pub fn end(mut self) -> Calls {
        signal_inside(&self.child, rustix::process::Signal::INT);
        self.child.wait().unwrap();
        let text = fs::read_to_string(&self.file).unwrap();
        let mut calls = Calls::default();
        for line in text.lines() {
            let (_, call) = line.trim_start().split_once(' ').unwrap();
            let call = call.trim_start();
            // The rest of a call that another thread's came into, and signals, begin otherwise.
            let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let Some(name) = call.split_once('(').map(|(name, _)| name) else { continue };
            if !name.chars().all(named) {
                continue;
            }
            let makes =
                matches!(name, "clone" | "clone3" | "fork" | "vfork" | "execve" | "execveat");
            if makes && !call.contains("CLONE_THREAD") {
                calls.processes.push(call.to_owned());
            }
            if call.contains(WAKES) {
                continue;
            }
            *calls.counts.entry(name.to_owned()).or_default() += 1;
        }
        calls
    }
}

impl Calls {
    /// Of each of `rounds` that were the same, without what happens by chance and what was in none of most rounds.
    pub fn of_each(&self, rounds: usize) -> BTreeMap<String, usize> {
        let counts = self.counts.iter().filter(|(name, _)| !BY_CHANCE.contains(&name.as_str()));
        let mut each = BTreeMap::new();
        for (name, count) in counts {
            // What a C library asks for a descriptor's file differs from version to version.
            let name = if name == "newfstatat" { "fstat" } else { name };
            *each.entry(name.to_owned()).or_default() += count;
        }
        each.retain(|_, count| {
            *count /= rounds;
            *count > 0
        });
        each
    }
}

fn all_followed(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")));
    // A thread may have ended since.
    statuses.flatten().all(|status| !status.contains("TracerPid:\t0\n"))
}
