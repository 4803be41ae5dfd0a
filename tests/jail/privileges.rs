//! As whom a jailed program runs, and what it can't do to get out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use nix_csi::jail::Bind;

use crate::program::{USER, can_jail, command, jailed, run};

#[test]
fn it_has_no_privileges() {
    if !can_jail("it_has_no_privileges") {
        return;
    }
    // As a container's runtime may start the driver: with groups, and with inheritable capabilities.
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--groups", "0,4", "--inh-caps", "+sys_admin,+chown", "--"]);
    let guard = command(&jailed(vec![]), "/bin/cat", &["/proc/self/status"]);
    setpriv.arg(guard.get_program()).args(guard.get_args());
    let mut child = setpriv.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lifeline = child.stdin.take();
    let status = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    drop(lifeline);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let user = USER.to_string();
    assert_eq!(field("Uid"), [&*user; 4]);
    assert_eq!(field("Gid"), [&*user; 4]);
    assert_eq!(field("Groups"), [""; 0]);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    assert_eq!(field("NoNewPrivs"), ["1"]);
}

/// Each is a way to change what the jail is made of.
const WAYS_OUT: &[&str] = &[
    "mount -t tmpfs x /tmp",
    "mount --bind /usr /tmp",
    "mount -o remount,bind,rw /shown",
    "mount -o remount,bind,suid /usr",
    "umount /proc",
    "umount -l /tmp",
    "umount /shown",
    "mknod /tmp/null c 1 3",
    "mknod /tmp/disk b 8 0",
    "chroot / true",
    "unshare --mount true",
    "unshare --net true",
    "unshare --pid --fork true",
    "hostname jailed",
    "nsenter --target 1 --mount true",
    "setpriv --reuid 0 true",
    "setpriv --reuid 1000 true",
    "chown 0 /tmp/own",
    "nice -n -5 sh -c '[ $(nice) -lt 0 ]'",
    "echo h > /proc/sysrq-trigger",
    "echo 1 > /proc/sys/kernel/hostname",
    "cat /proc/kmsg",
    "cat /proc/kcore",
];

fn tries(ways: &[&str]) -> String {
    let lines = ways
        .iter()
        .map(|way| format!("({way}) >/dev/null 2>&1 && echo '{}'\n", way.replace('\'', "")));
    format!("touch /tmp/own\n{}:", lines.collect::<String>())
}

#[test]
fn there_is_no_way_out() {
    if !can_jail("there_is_no_way_out") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let guard = jailed(vec![Bind::read_only(dir.path(), "/shown")]);
    assert_eq!(run(&guard, &tries(WAYS_OUT)).out, "");
    // The same tries outside: they are not refused for want of a tool.
    let missing = run(
        &guard,
        "for t in mount umount mknod chroot unshare hostname nsenter setpriv; do
        command -v $t >/dev/null || echo $t; done",
    );
    assert_eq!(missing.out, "");
}

#[test]
fn a_set_user_id_program_is_an_ordinary_one() {
    if !can_jail("a_set_user_id_program_is_an_ordinary_one") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let id = dir.path().join("id");
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
    for bind in [Bind::read_only(dir.path(), "/shown"), Bind::writable(dir.path(), "/shown")] {
        assert_eq!(
            run(&jailed(vec![bind]), "/shown/id -u; /shown/id -ru").out,
            format!("{USER}\n{USER}\n")
        );
    }
    // Nor a device.
    let null = dir.path().join("null");
    let made = Command::new("mknod").args(["-m", "666"]).arg(&null).args(["c", "1", "3"]).status();
    assert!(made.unwrap().success());
    let said = run(&jailed(vec![Bind::writable(dir.path(), "/shown")]), "cat /shown/null");
    assert!(said.err.contains("Permission denied"), "{said:?}");
}

/// In a user namespace of its own it would be root of much of the kernel's code.
#[test]
fn there_is_no_user_namespace_for_it() {
    if !can_jail("there_is_no_user_namespace_for_it") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let guard = jailed(vec![Bind::read_only(dir.path(), "/shown")]);
    let inside = "mount -t tmpfs x /tmp && echo mounted; mount -o remount,bind,rw /shown; \
                  touch /shown/new; umount /shown && echo bare; umount -l / && ls -A /";
    let said = run(
        &guard,
        &format!(
            "unshare --user true && echo user; \
             unshare --user --map-root-user --mount sh -c '{inside}'"
        ),
    );
    assert_eq!(said.out, "", "{said:?}");
    assert_eq!(said.err.matches("unshare failed: Operation not permitted").count(), 2, "{said:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
