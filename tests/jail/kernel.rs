//! Files of the kernel's, which root writes without any capability: each is first seen to open. Nothing is
//! written: an open file is enough.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};

use nix_csi::jail::Guard;
use nix_csi::jail::capabilities::NOTHING;

use crate::lab::{eventually, skipped};
use crate::program::{Guarded, can_jail, children, jailed, run};

fn root_without_powers() -> Guard {
    Guard { keeps: Some(NOTHING), ..Guard::default() }
}

const CORES: &str = "/proc/sys/kernel/core_pattern";
/// That of them which a machine has, beside [`CORES`].
const OTHERS: &str = "/proc/sys/vm/drop_caches /proc/irq/default_smp_affinity /proc/sysrq-trigger \
    /sys/kernel/uevent_helper /sys/kernel/profiling /sys/power/state /dev/kmsg /dev/loop-control";

/// Names each that opens.
fn opening() -> String {
    format!(
        "for f in {CORES} {OTHERS}; do [ ! -e $f ] || ( : >>$f ) 2>/dev/null && echo $f; done; true"
    )
}

fn opened(said: &str) -> Vec<&str> {
    said.lines().filter(|name| fs::exists(name).unwrap()).collect()
}

#[test]
fn what_asks_a_daemon_opens_no_file_of_the_kernels_to_write() {
    if !can_jail("what_asks_a_daemon_opens_no_file_of_the_kernels_to_write") {
        return;
    }
    let open = run(&root_without_powers(), &opening()).out;
    let found = opened(&open);
    assert!(found.contains(&CORES) && found.len() > 2, "{open}");
    let filtered = Guard { filtered: true, ..root_without_powers() };
    assert_eq!(opened(&run(&filtered, &opening()).out), [""; 0]);
    // A disk is not read either.
    let disk = "head -c 0 /dev/loop0 && echo disk";
    if run(&root_without_powers(), disk).out == "disk\n" {
        assert_eq!(run(&filtered, disk).out, "");
    }
}

/// Another process of root's without powers, which the kernel takes for an equal.
#[test]
fn what_asks_a_daemon_looks_into_no_other_process() {
    if !can_jail("what_asks_a_daemon_looks_into_no_other_process") {
        return;
    }
    let mut other = Guarded::start(&root_without_powers(), "echo $$; exec sleep 1000");
    let pid = other.line();
    let look = format!("ls /proc/{pid}/root/ >/dev/null && echo seen");
    assert_eq!(run(&root_without_powers(), &look).out, "seen\n");
    let filtered = Guard { filtered: true, ..root_without_powers() };
    assert_eq!(run(&filtered, &look).out, "");
}

/// landlock(7) has a word for it from 6.12 on.
fn knows_scopes() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

#[test]
fn a_jail_is_out_of_reach_of_sockets_that_have_no_file() {
    const TEST: &str = "a_jail_is_out_of_reach_of_sockets_that_have_no_file";
    if !can_jail(TEST) {
        return;
    }
    if !knows_scopes() {
        return skipped(TEST, "needs Linux 6.12");
    }
    let name = format!("nix-csi-{}", std::process::id());
    let _listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let perl = format!(
        "socket(S, AF_UNIX, SOCK_STREAM, 0); print connect(S, pack(q(Sa*), AF_UNIX, qq(\\0{name}))) ? q(in) : $!"
    );
    let script = format!("exec perl -MSocket -e '{perl}'");
    assert_eq!(run(&root_without_powers(), &script).out, "in");
    assert_eq!(run(&jailed(vec![]), &script).out, "Operation not permitted");
}

/// All else is written, moved and linked as before, and read.
#[test]
fn what_is_not_the_kernels_is_written_as_before() {
    if !can_jail("what_is_not_the_kernels_is_written_as_before") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "cd {}; mkdir a b; echo text >a/f; mv a/f b/g; ln b/g a/h; ln -s h a/i; cat a/i | tee /dev/stderr
         truncate -s 2 a/h; rm a/h; cat <b/g; : >/dev/null; : >>/dev/shm/nix-csi-$$; rm /dev/shm/nix-csi-$$
         cat {CORES} >/dev/null; head -c 0 /dev/urandom; ls /sys >/dev/null; mkfifo p; rm -r a p",
        dir.path().display()
    );
    let filtered = Guard { filtered: true, ..root_without_powers() };
    let said = run(&filtered, &format!("set -e; {script}"));
    assert_eq!((&*said.out, &*said.err), ("text\nte", "text\n"), "{said:?}");
}

/// A node that waits for its first command, below these. What it has logged is in a file of the directory.
struct Node {
    outer: Child,
    dir: tempfile::TempDir,
}

impl Node {
    fn start(program: &str, before: &[&str], more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nix = dir.path().join("nix");
        let script = "#!/bin/sh\ntouch ${0%/*}/runs; exec sleep 1000\n";
        fs::write(&nix, script).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&nix, executable).unwrap();
        let mut command = Command::new(program);
        command.args(before).arg(env!("CARGO_BIN_EXE_nix-csi")).arg("node").args(more);
        command.arg("--nix").arg(nix).arg("--run-dir").arg(dir.path().join("run"));
        command.arg("--state-dir").arg(dir.path().join("state")).stdin(Stdio::null());
        command.stderr(fs::File::create(dir.path().join("log")).unwrap());
        let node = Self { outer: command.spawn().unwrap(), dir };
        let runs = node.dir.path().join("runs");
        eventually("the first command", || runs.try_exists().unwrap());
        node
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// What a script says that root with all capabilities runs in its namespaces.
    fn inside(&self, script: &str) -> String {
        let pid = children(self.outer.id()).remove(0).to_string();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", &pid, "--mount", "--pid", "sh", "-c", script]);
        String::from_utf8(nsenter.output().unwrap().stdout).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.outer.kill();
        let _ = self.outer.wait();
    }
}

const CONTAINER: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

/// For all that is in it, whatever they keep; what a build needs of the kernel stays.
#[test]
fn in_a_container_files_of_the_kernels_are_read_only_to_all() {
    if !can_jail("in_a_container_files_of_the_kernels_are_read_only_to_all") {
        return;
    }
    let kernels = |said: &str| {
        let found = opened(said).into_iter().filter(|name| !name.starts_with("/dev/"));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let whole = Node::start("unshare", &CONTAINER, &["--privileges", "all"]);
    assert!(kernels(&whole.inside(&opening())).contains(&CORES.to_owned()));
    let shut = Node::start("unshare", &CONTAINER, &[]);
    assert_eq!(kernels(&shut.inside(&opening())), [""; 0]);
    let sandbox = "ls /proc/sys/proc 2>/dev/null; cat /proc/sys/kernel/ostype; exec unshare --user \
        --map-root-user --mount --pid --fork sh -c 'mount -t proc proc /proc && echo mounted'";
    assert_eq!(shut.inside(sandbox), "Linux\nmounted\n");
}

/// The machine's own, where a person runs it.
#[test]
fn outside_of_a_container_files_of_the_kernels_stay_as_they_are() {
    if !can_jail("outside_of_a_container_files_of_the_kernels_stay_as_they_are") {
        return;
    }
    let script = format!("{}; grep -c ' /proc/sys ' /proc/self/mountinfo", opening());
    let before = run(&Guard::default(), &script).out;
    for (program, before) in [
        ("env", &[][..]),
        // The first process of its pid namespace, and nothing but that.
        ("unshare", &["--pid", "--fork", "--kill-child"]),
    ] {
        let node = Node::start(program, before, &[]);
        let here = Command::new("sh").args(["-c", &opening()]).output().unwrap();
        let here = String::from_utf8(here.stdout).unwrap();
        assert!(opened(&here).contains(&CORES), "{program} {before:?}: {here}");
        drop(node);
    }
    assert_eq!(run(&Guard::default(), &script).out, before);
}

/// Runs what follows where landlock_create_ruleset(2) is answered as by a kernel without it: prctl(2) with a
/// filter of four instructions.
const NO_LANDLOCK: &str = "
    my $prctl = {x86_64 => 157, aarch64 => 167}->{(POSIX::uname())[4]};
    my $errno = 0x50000 | POSIX::ENOSYS();
    my $filter = pack('SCCL' x 4, 0x20, 0, 0, 0, 0x15, 0, 1, 444, 6, 0, 0, $errno, 6, 0, 0, 0x7fff0000);
    syscall($prctl, 38, 1, 0, 0, 0) == 0 && syscall($prctl, 22, 2, pack('Sx![P]P', 4, $filter)) == 0 or die $!;
    exec @ARGV";

#[test]
fn a_kernel_without_landlock_is_told_of_once() {
    const TEST: &str = "a_kernel_without_landlock_is_told_of_once";
    if !can_jail(TEST) {
        return;
    }
    let told = |program, before: &[&str], more: &[&str]| {
        let node = Node::start(program, before, more);
        node.log().matches("the kernel has no landlock (Linux 5.19, ").count()
    };
    let without = ["-MPOSIX", "-e", NO_LANDLOCK];
    assert_eq!(told("perl", &without, &[]), 1);
    assert_eq!(told("perl", &without, &["--privileges", "all"]), 0);
    assert_eq!(told("env", &[], &[]), 0);
}
