//! The binary as the first process of a pid namespace.

use std::process::Command;

use crate::program::can_jail;

fn first_process(args: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(env!("CARGO_BIN_EXE_nix-csi")).args(args);
    command
}

#[test]
fn the_first_process_ends_as_the_work_does() {
    if !can_jail("the_first_process_ends_as_the_work_does") {
        return;
    }
    let usage = first_process(&["node", "--no-such-option"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(64), "{usage:?}");
    let failure = first_process(&["status", "--admin-endpoint", "unix:///nowhere.sock"]).output();
    let failure = failure.unwrap();
    assert_eq!(failure.status.code(), Some(1), "{failure:?}");
    let said = String::from_utf8(failure.stderr).unwrap();
    assert_eq!(said.matches("can't reach nix-csi").count(), 1, "it ran once: {said}");
}
