//! Settings that reach the program once, and what the guard says of its own failures.

use std::path::Path;
use std::process::Stdio;

use nix_csi::jail::{Bind, Guard, MAX_SETTINGS, SETUP_FAILED};

use crate::program::{Guarded, can_jail, command, jailed, run};

const SECRET: &str = "access-tokens = github.com=hunter2hunter2\n";

/// By every way to its standard input; the first one has it.
const READ: &str = "
    cat /proc/self/fd/0; echo; echo again:
    cat /proc/self/fd/0; cat /dev/fd/0; cat /proc/1/fd/0; cat /proc/$$/fd/0; cat
    tr '\\0' '\\n' < /proc/self/environ | grep -c hunter2
    cat /proc/1/cmdline | grep -c hunter2";

#[test]
fn settings_are_read_once() {
    if !can_jail("settings_are_read_once") {
        return;
    }
    let guard = Guard { config_bytes: SECRET.len(), ..jailed(vec![]) };
    let mut guarded = Guarded::start(&guard, READ);
    guarded.give(SECRET.as_bytes());
    let said = guarded.end();
    // The script itself has the word twice, in lines of its own.
    assert_eq!((&*said.out, &*said.err), (&*format!("{SECRET}\nagain:\n0\n2\n"), ""));
}

#[test]
fn the_lifeline_is_not_the_programs() {
    // What comes after the settings is nobody's.
    let guard = Guard { config_bytes: 3, ..Guard::default() };
    let mut guarded = Guarded::start(&guard, "cat; echo .; cat");
    guarded.give(b"abcdef");
    assert_eq!(guarded.end().out, "abc.\n");
    // Without settings there is nothing to read.
    let said = run(&Guard::default(), "readlink /proc/self/fd/0");
    assert_eq!(said.out, "/dev/null\n");
}

#[test]
fn as_many_as_a_pipe_holds() {
    let guard = Guard { config_bytes: MAX_SETTINGS, ..Guard::default() };
    let mut guarded = Guarded::start(&guard, "wc -c");
    guarded.give(&vec![b'x'; MAX_SETTINGS]);
    assert_eq!(guarded.end().out.trim(), MAX_SETTINGS.to_string());
    let guard = Guard { config_bytes: MAX_SETTINGS + 1, ..Guard::default() };
    assert_eq!(refused(&guard), (64, "--config-bytes is more than 65536".to_owned()));
    // A driver that dies before it has given them.
    let guard = Guard { config_bytes: 10, ..Guard::default() };
    let mut guarded = Guarded::start(&guard, "echo it ran");
    guarded.give(b"abc");
    guarded.close_lifeline();
    let said = guarded.end();
    assert_eq!(said.status.code(), Some(SETUP_FAILED.into()));
    assert_eq!(
        (&*said.out, &*said.err),
        ("", "nix-csi guard: can't read the program's settings: failed to fill whole buffer\n")
    );
}

/// Exit code and the one line that is said.
fn refused(guard: &Guard) -> (i32, String) {
    one_line(&mut command(guard, "/bin/sh", &["-c", "echo it ran"]))
}

fn one_line(command: &mut std::process::Command) -> (i32, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Closed, it is the end before the program has begun.
    let lifeline = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(lifeline);
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.stdout, b"", "{err}");
    let line = err.strip_prefix("nix-csi guard: ").and_then(|text| text.strip_suffix('\n'));
    let line = line.filter(|line| !line.contains('\n')).unwrap_or_else(|| panic!("{err:?}"));
    (output.status.code().unwrap(), line.to_owned())
}

#[test]
fn a_failure_of_its_own_is_one_line() {
    let none = "No such file or directory (os error 2)";
    let missing =
        command(&Guard::default(), "/no/program", &[]).stdin(std::process::Stdio::null()).output();
    drop(missing);
    assert_eq!(
        one_line(&mut command(&Guard::default(), "/no/program", &[])),
        (71, format!("can't run /no/program: {none}"))
    );
    if !can_jail("a_failure_of_its_own_is_one_line") {
        return;
    }
    let with = |bind| refused(&jailed(vec![bind]));
    let setup_failed = i32::from(SETUP_FAILED);
    assert_eq!(
        with(Bind::read_only("/no/dir", "/x")),
        (setup_failed, format!("can't show /no/dir: {none}"))
    );
    assert_eq!(
        with(Bind::writable("/no/dir", "/x")),
        (setup_failed, format!("can't show /no/dir: {none}"))
    );
    let nothing = jailed(vec![Bind::read_only_if_there("/no/dir", "/x")]);
    assert_eq!(run(&nothing, "ls -d /x 2>/dev/null; echo it ran").out, "it ran\n");
    let mut nowhere = jailed(vec![]);
    nowhere.jail.as_mut().unwrap().chdir = Path::new("/nowhere").into();
    assert_eq!(refused(&nowhere), (setup_failed, format!("can't enter /nowhere: {none}")));
}

#[test]
fn bad_arguments_are_a_usage_error() {
    let guard = |args: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nix-csi"));
        one_line(command.arg("guard").args(args))
    };
    for (args, wanted) in [
        (&["--no-such", "--", "true"][..], "unknown option \"--no-such\""),
        (&["--"], "no program after --"),
        (&[], "no program after --"),
        (&["--grace-ms", "soon", "--", "true"], "soon is not a number"),
        (&["--uid"], "--uid needs a value"),
        (&["--jail", "--", "true"], "a jail needs a user and a group other than root"),
        (
            &["--jail", "--uid", "1", "--gid", "0", "--", "true"],
            "a jail needs a user and a group other than root",
        ),
        (
            &["--jail", "--uid", "1", "--gid", "1", "--ro", "/", "/a/../..", "--", "true"],
            "/a/../.. is not an absolute path without ..",
        ),
    ] {
        assert_eq!(guard(args), (64, wanted.to_owned()), "{args:?}");
    }
}
