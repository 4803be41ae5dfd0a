//! What ends with what.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix_csi::jail::{Guard, SETUP_FAILED};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::lab::eventually;
use crate::program::{Guarded, Process, can_jail, children, jailed, run};

/// Says the numbers of a child, of a double-forked one in a session of its own that ignores SIGTERM,
/// and of that one's child.
const TREE: &str = r#"
    (setsid sh -c 'trap "" TERM HUP; sleep 1000 & echo $! $$; wait' &) | {
        read -r leaf orphan; echo $leaf; echo $orphan; }
    echo $$; wait; sleep 1000"#;

fn tree(guard: &Guard) -> (Guarded, Vec<Process>) {
    let mut guarded = Guarded::start(guard, TREE);
    let processes = (0..3).map(|_| guarded.process()).collect();
    (guarded, processes)
}

fn alive(processes: &[Process]) -> Vec<&Process> {
    processes.iter().filter(|process| process.is_alive()).collect()
}

#[test]
fn closing_the_lifeline_ends_the_whole_tree() {
    let (mut guarded, processes) = tree(&Guard::default());
    assert_eq!(alive(&processes).len(), 3);
    guarded.close_lifeline();
    guarded.wait();
    // Before the guard: who waits for it need not look again.
    assert!(alive(&processes).is_empty(), "{processes:?}");
    let said = guarded.end();
    assert_eq!((said.status.code(), &*said.err), (Some(SETUP_FAILED.into()), ""));
}

#[test]
fn the_programs_end_ends_what_it_left() {
    let script =
        "trap 'exit 3' TERM; (setsid sh -c 'echo $$; exec sleep 1000' &); sleep 1000 & wait";
    let mut guarded = Guarded::start(&Guard::default(), script);
    let left = guarded.process();
    guarded.signal(Signal::TERM);
    guarded.wait();
    assert!(!left.is_alive());
    let said = guarded.end();
    assert_eq!((said.status.code(), &*said.out), (Some(3), ""));
}

#[test]
fn sigterm_is_forwarded() {
    for signal in [Signal::TERM, Signal::INT] {
        let script = "trap 'echo asked; exit 7' TERM; echo ready; sleep 1000 & wait";
        let mut guarded = Guarded::start(&Guard::default(), script);
        assert_eq!(guarded.line(), "ready");
        guarded.signal(signal);
        let said = guarded.end();
        assert_eq!((said.status.code(), &*said.out), (Some(7), "asked\n"), "{said:?}");
    }
}

#[test]
fn what_ignores_sigterm_is_killed_after_the_grace() {
    let grace = Duration::from_millis(300);
    let guard = Guard { grace, ..Guard::default() };
    let script = "trap '' TERM; echo $$; sleep 1000 & echo $!; wait; sleep 1000";
    let mut guarded = Guarded::start(&guard, script);
    let processes = [guarded.process(), guarded.process()];
    let asked = Instant::now();
    guarded.signal(Signal::TERM);
    guarded.wait();
    let took = asked.elapsed();
    assert!(alive(&processes).is_empty(), "{processes:?}");
    let said = guarded.end();
    assert!(took >= grace && took < grace + Duration::from_secs(5), "{took:?}");
    assert_eq!(said.status.code(), Some(SETUP_FAILED.into()));
}

#[test]
fn exit_code_and_signal_pass_through() {
    for code in [0, 1, 7, 255] {
        let said = run(&Guard::default(), &format!("exit {code}"));
        assert_eq!((said.status.code(), &*said.err), (Some(code), ""));
    }
    for signal in [Signal::TERM, Signal::KILL, Signal::SEGV, Signal::PIPE] {
        let said = run(&Guard::default(), &format!("kill -{} $$", signal.as_raw()));
        assert_eq!(said.status.signal(), Some(signal.as_raw()), "{said:?}");
        assert!(!said.status.core_dumped());
    }
}

#[test]
fn in_a_jail_too() {
    if !can_jail("in_a_jail_too") {
        return;
    }
    assert_eq!(run(&jailed(vec![]), "exit 7").status.code(), Some(7));
    // The first process of a pid namespace gets no signal of its own whose default is to end it.
    let said = run(&jailed(vec![]), "sh -c 'kill -9 $$'; exit $?");
    assert_eq!(said.status.code(), Some(128 + 9), "{said:?}");
    let mut guarded = Guarded::start(&jailed(vec![]), "echo ready; sleep 1000 & wait");
    assert_eq!(guarded.line(), "ready");
    let first = Process::new(children(guarded.id())[0]);
    guarded.close_lifeline();
    assert_eq!(guarded.end().status.code(), Some(SETUP_FAILED.into()));
    assert!(!first.is_alive());
}

#[test]
fn a_killed_guard_takes_its_program_along() {
    let script = "echo $$; sleep 1000 & wait";
    let mut guarded = Guarded::start(&Guard::default(), script);
    let program = guarded.process();
    guarded.signal(Signal::KILL);
    eventually("the program's end", || !program.is_alive());
    // And of a jail all, sessions of their own or not: its first process is the program.
    if !can_jail("a_killed_guard_takes_its_program_along") {
        return;
    }
    let script = "setsid sh -c 'sleep 1000 & echo ready; wait' & wait; sleep 1000";
    let mut guarded = Guarded::start(&jailed(vec![]), script);
    assert_eq!(guarded.line(), "ready");
    let first = children(guarded.id())[0];
    let all: Vec<_> =
        [vec![first], descendants(first)].concat().into_iter().map(Process::new).collect();
    assert_eq!(all.len(), 3);
    guarded.signal(Signal::KILL);
    eventually("the jail's end", || alive(&all).is_empty());
}

fn descendants(of: u32) -> Vec<u32> {
    children(of).into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

#[test]
fn an_orphan_ends_though_the_program_lives() {
    let guard = Guard { ends_orphans: true, ..Guard::default() };
    let script = "(setsid sleep 1000 & echo $!); sleep 1000 & echo $!; echo $$; wait";
    let mut guarded = Guarded::start(&guard, script);
    let [orphan, child, program] = [guarded.process(), guarded.process(), guarded.process()];
    eventually("the orphan's end", || !orphan.is_alive());
    assert!(child.is_alive() && program.is_alive() && guarded.is_running());
}

/// A builder that leaves something behind all the time must not be a way to stay.
#[test]
fn an_orphan_ends_though_others_come_and_go() {
    let guard = Guard { ends_orphans: true, ..Guard::default() };
    let script = "(setsid sleep 1000 & echo $!); while :; do (sleep 0.1 &); sleep 0.1; done";
    let mut guarded = Guarded::start(&guard, script);
    let orphan = guarded.process();
    let begin = Instant::now();
    eventually("the orphan's end", || !orphan.is_alive());
    assert!(begin.elapsed() < Duration::from_secs(20) && guarded.is_running());
}
