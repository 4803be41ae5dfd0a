//! What a jailed program sees of the machine, and where it can write.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use nix_csi::jail::{Bind, Guard, Limits};

use crate::program::{HOME, USER, can_jail, jailed, run};

/// What a script prints; it must have nothing to complain about.
fn seen(guard: &Guard, script: &str) -> Vec<String> {
    let said = run(guard, script);
    assert_eq!(said.err, "", "{said:?}");
    said.out.lines().map(str::to_owned).collect()
}

#[test]
fn only_what_is_bound_is_there() {
    if !can_jail("only_what_is_bound_is_there") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("shown/sub")).unwrap();
    fs::write(dir.path().join("beside"), "secret").unwrap();
    let guard = jailed(vec![Bind::read_only(dir.path().join("shown"), "/run/shown")]);
    let tools = ["bin", "sbin", "usr", "lib", "lib32", "lib64", "libx32"];
    let is_tool = |name: &String| tools.contains(&&**name);
    let root = seen(&guard, "ls -A /").into_iter().filter(|name| !is_tool(name));
    assert_eq!(root.collect::<Vec<_>>(), ["dev", "etc", "proc", "run", "tmp"]);
    let tools = tools.map(|dir| format!("-path /{dir} -prune -o")).join(" ");
    let walk = format!(
        "find / -path /proc -prune -o -path /etc/alternatives -prune -o {tools} -print | sort"
    );
    let expected = [
        "/",
        "/dev",
        "/dev/fd",
        "/dev/full",
        "/dev/null",
        "/dev/random",
        "/dev/urandom",
        "/dev/zero",
        "/etc",
        "/etc/group",
        "/etc/passwd",
        "/run",
        "/run/shown",
        "/run/shown/sub",
        "/tmp",
    ];
    assert_eq!(seen(&guard, &walk), expected);
    // Where the directory lies on the machine leads nowhere.
    let outside = dir.path().join("beside");
    let said = run(
        &guard,
        &format!("cat {} /run/shown/../beside /proc/1/root/etc/shadow", outside.display()),
    );
    assert_eq!(
        (&*said.out, said.err.matches("No such file or directory").count()),
        ("", 3),
        "{said:?}"
    );
    let passwd = format!("root:x:0:0::/:/bin/false,nix-eval:x:{USER}:{USER}::{HOME}:/bin/false");
    assert_eq!(seen(&guard, "cat /etc/passwd").join(","), passwd);
}

#[test]
fn writes_go_where_they_may() {
    if !can_jail("writes_go_where_they_may") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [open, mine] = ["open", "mine"].map(|name| dir.path().join(name));
    for place in [&open, &mine] {
        fs::create_dir(place).unwrap();
        fs::set_permissions(place, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::write(open.join("file"), "as it was").unwrap();
    fs::set_permissions(open.join("file"), fs::Permissions::from_mode(0o666)).unwrap();
    let guard = jailed(vec![Bind::read_only(&open, "/open"), Bind::writable(&mine, "/mine")]);
    let refused = "touch /open/new; echo x > /open/file; rm /open/file; mkdir /open/dir; \
                   ln -s x /open/link; chmod 777 /open; touch /new; mkdir /proc/new; touch /dev/new";
    let said = run(&guard, refused);
    let read_only = said.err.matches("Read-only file system").count();
    assert_eq!((read_only, said.err.lines().count()), (8, 9), "{said:?}");
    assert_eq!(fs::read_to_string(open.join("file")).unwrap(), "as it was");
    assert_eq!(fs::read_dir(&open).unwrap().count(), 1);
    seen(&guard, "touch /tmp/new /mine/new; echo x > /dev/null");
    let new = fs::metadata(mine.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (USER, USER));
    // /tmp is its own each time, and bounded.
    assert_eq!(seen(&guard, "ls -A /tmp"), [""; 0]);
    let said = run(&guard, "head -c 3000000 /dev/zero > /tmp/full");
    assert!(said.err.contains("No space left on device"), "{said:?}");
}

#[test]
fn another_users_file_stays_another_users() {
    if !can_jail("another_users_file_stays_another_users") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Of root, of a user, and of a group that the driver may be in.
    for (name, uid, gid, mode) in [
        ("root", 0, 0, 0o600),
        ("user", 1000, 1000, 0o600),
        ("group", 0, 0, 0o640),
        ("own", USER, USER, 0o600),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, name).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        chown(&file, Some(uid), Some(gid)).unwrap();
    }
    for bind in [Bind::read_only(dir.path(), "/shared"), Bind::writable(dir.path(), "/shared")] {
        let said = run(
            &jailed(vec![bind]),
            "cd /shared; cat root user group own; rm -f root; chmod 644 user",
        );
        assert_eq!(said.out, "own");
        let denied =
            ["root", "user", "group"].map(|name| format!("cat: {name}: Permission denied"));
        assert_eq!(said.err.lines().take(3).collect::<Vec<_>>(), denied);
        assert_eq!(said.err.lines().count(), 5, "{said:?}");
    }
}

#[test]
fn the_machines_processes_are_out_of_sight() {
    if !can_jail("the_machines_processes_are_out_of_sight") {
        return;
    }
    let guard = jailed(vec![]);
    // The script is the first; `ls` and `grep` may have ended.
    let numbers = seen(&guard, "cd /proc; for p in [0-9]*; do echo $p; done");
    assert_eq!(numbers, ["1"]);
    let own = std::process::id();
    let said = run(&guard, &format!("kill -9 {own}; ls /proc/{own}; kill -0 -1 && echo reached"));
    assert_eq!(said.out, "", "{said:?}");
    // Nor its names and its shared memory.
    let ours = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    for kind in ["mnt", "pid", "ipc", "uts"] {
        assert_ne!(
            seen(&guard, &format!("readlink /proc/self/ns/{kind}")),
            [ours(kind).to_str().unwrap()]
        );
    }
}

#[test]
fn nothing_is_inherited() {
    if !can_jail("nothing_is_inherited") {
        return;
    }
    // A descriptor that a careless caller left open across the exec.
    let secret = tempfile::tempfile().unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    for guard in [jailed(vec![]), Guard::default()] {
        // `ls` has the directory open.
        assert_eq!(seen(&guard, "ls /proc/self/fd"), ["0", "1", "2", "3"]);
    }
    assert_eq!(
        seen(&jailed(vec![]), "tr '\\0' '\\n' < /proc/1/environ; pwd"),
        ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/"]
    );
}

#[test]
fn limits_hold() {
    let limits = Limits { data: Some(64 << 20), ..Limits::default() };
    let guard = Guard { limits, ..Guard::default() };
    let said = run(&guard, "dd if=/dev/zero of=/dev/null bs=500M count=1; ulimit -c; ulimit -H -d");
    assert!(said.err.contains("memory exhausted"), "{said:?}");
    assert_eq!(said.out, "0\n65536\n");
    // The same without a limit.
    let said = run(&Guard::default(), "dd if=/dev/zero of=/dev/null bs=500M count=1 status=none");
    assert!(said.status.success(), "{said:?}");
    if !can_jail("limits_hold") {
        return;
    }
    let limits = Limits { processes: Some(3), ..Limits::default() };
    let said =
        run(&Guard { limits, ..jailed(vec![]) }, "sleep 1000 & sleep 1000 & sleep 1000 & echo all");
    assert!(said.err.contains("Cannot fork") && said.out.is_empty(), "{said:?}");
}
