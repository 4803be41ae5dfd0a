//! A daemon that is replaced while what it has started is busy, and the socket that outlives it.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use nix_csi::jail::{Guard, SETUP_FAILED};
use rustix::process::Signal;

use crate::lab::eventually;
use crate::program::{Guarded, Process, command};

/// A daemon with a worker and the worker's builder; says the three. The worker ends when told (SIGUSR1), or
/// leaves something that is nobody's any more (SIGUSR2), and says it.
const DAEMON: &str = r#"
    echo $$
    setsid sh -c 'trap "exit 0" USR1; trap "sh -c \"setsid sleep 1000 & echo \\\$!\"" USR2
        sleep 1000 & echo $$; echo $!; wait; wait; wait' &
    wait; sleep 1000"#;

fn daemon(grace: u64) -> (Guarded, [Process; 3]) {
    let grace = std::time::Duration::from_millis(grace);
    let guard = Guard { ends_orphans: true, grace, ..Guard::default() };
    let mut guarded = Guarded::start(&guard, DAEMON);
    let all = [guarded.process(), guarded.process(), guarded.process()];
    (guarded, all)
}

#[test]
fn a_retired_daemon_leaves_its_workers_their_time() {
    let (mut guarded, [daemon, worker, builder]) = daemon(5000);
    guarded.signal(Signal::HUP);
    eventually("the daemon's end", || !daemon.is_alive());
    guarded.signal(Signal::HUP);
    let late = Process::new(guarded.id());
    worker.signal(Signal::USR1);
    eventually("the worker's end", || !worker.is_alive());
    eventually("the builder's end", || !builder.is_alive());
    eventually("the guard's end", || !late.is_alive());
    let said = guarded.end();
    // As the program ended, by SIGTERM.
    assert_eq!((said.status.code(), &*said.err), (None, ""), "{said:?}");
}

#[test]
fn workers_of_a_retired_daemon_are_no_orphans() {
    let (mut guarded, [daemon, worker, builder]) = daemon(5000);
    guarded.signal(Signal::HUP);
    eventually("the daemon's end", || !daemon.is_alive());
    worker.signal(Signal::USR2);
    let orphan = guarded.process();
    eventually("the orphan's end", || !orphan.is_alive());
    assert!(worker.is_alive() && builder.is_alive());
}

#[test]
fn one_that_does_not_retire_is_killed_and_its_workers_are_not() {
    let script = DAEMON.replace("echo $$\n", "trap '' TERM; echo $$\n");
    let grace = std::time::Duration::from_millis(300);
    let guard = Guard { grace, ..Guard::default() };
    let mut guarded = Guarded::start(&guard, &script);
    let [daemon, worker, builder] = [guarded.process(), guarded.process(), guarded.process()];
    guarded.signal(Signal::HUP);
    eventually("the daemon's end", || !daemon.is_alive());
    assert!(worker.is_alive() && builder.is_alive() && guarded.is_running());
    // Asked to end itself, it ends all.
    guarded.signal(Signal::TERM);
    guarded.wait();
    assert!(!worker.is_alive() && !builder.is_alive());
}

#[test]
fn the_drivers_end_is_the_end_of_the_retired() {
    let (mut guarded, [daemon, worker, builder]) = daemon(5000);
    guarded.signal(Signal::HUP);
    eventually("the daemon's end", || !daemon.is_alive());
    guarded.close_lifeline();
    let said = guarded.end();
    assert_eq!(said.status.code(), Some(SETUP_FAILED.into()));
    assert!(!worker.is_alive() && !builder.is_alive());
}

#[test]
fn a_program_finds_the_socket_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let socket = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let guard = Guard { listens: true, ..Guard::default() };
    let script = "echo $LISTEN_FDS $((LISTEN_PID - $$)) >&2; (ls -l /proc/$$/fd >&2); :";
    let mut command = command(&guard, "/bin/sh", &["-c", script]);
    let mut guard = command.stdout(Stdio::from(socket.try_clone().unwrap())).spawn().unwrap();
    drop(command); // which holds the socket
    let mut said = String::new();
    guard.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(guard.wait().unwrap().success());
    assert!(said.starts_with("1 0\n"), "{said}");
    let leads_to = |fd: u32| {
        let line = said.lines().find_map(|line| line.split_once(&format!(" {fd} -> ")));
        line.map(|(_, to)| to)
    };
    assert!(leads_to(3).unwrap().starts_with("socket:"), "{said}");
    assert_eq!((leads_to(1), leads_to(4)), (Some("/dev/null"), None), "{said}");
    // Between two programs it is still there.
    UnixStream::connect(&path).unwrap();
    drop(socket);
    UnixStream::connect(&path).unwrap_err();
}
