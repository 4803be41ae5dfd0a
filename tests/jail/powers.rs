//! What a program keeps of root's powers, and the system calls that are refused to it. Each is first seen to
//! work without.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use nix_csi::jail::Guard;
use nix_csi::jail::capabilities::{self, CapabilitySet, DAEMON, NOTHING, SSHD};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use crate::lab::eventually;
use crate::program::{Guarded, can_jail, jailed, run};

fn with(keeps: CapabilitySet) -> Guard {
    Guard { keeps: Some(keeps), ..Guard::default() }
}

/// Of `/proc/<pid>/status`.
fn status(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn sets(status: &BTreeMap<String, String>) -> [u64; 5] {
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]
        .map(|set| u64::from_str_radix(&status[set], 16).unwrap())
}

/// What the tests' own process may give.
fn ours() -> CapabilitySet {
    rustix::thread::capabilities(None).unwrap().permitted
}

#[test]
fn a_program_keeps_what_it_is_given_and_its_guard_what_ends_it() {
    if !can_jail("a_program_keeps_what_it_is_given_and_its_guard_what_ends_it") {
        return;
    }
    // A program of root's has all that its parent has.
    let said = status(&run(&Guard::default(), "cat /proc/self/status").out);
    assert_eq!((sets(&said)[2], &*said["NoNewPrivs"]), (ours().bits(), "0"));
    for keeps in [NOTHING, DAEMON, SSHD] {
        let given = (keeps & ours()).bits();
        let mut guarded = Guarded::start(&with(keeps), "cat /proc/self/status; echo; sleep 1000");
        let lines = std::iter::repeat_with(|| guarded.line());
        let text: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
        let said = status(&text.join("\n"));
        assert_eq!(sets(&said), [0, given, given, given, 0], "{}", capabilities::names(keeps));
        assert_eq!((&*said["NoNewPrivs"], &*said["Seccomp"]), ("1", "0"));
        // Its program does not wait for that.
        let kill = CapabilitySet::KILL.bits();
        eventually("a guard that keeps what ends its program", || {
            let guard = std::fs::read_to_string(format!("/proc/{}/status", guarded.id()));
            sets(&status(&guard.unwrap())) == [0, kill, kill, kill, 0]
        });
    }
}

/// `/bin/mount` is root's and set-user-ID: of its powers nothing comes back.
#[test]
fn what_is_given_up_does_not_come_back() {
    if !can_jail("what_is_given_up_does_not_come_back") {
        return;
    }
    let tries = "chroot / true && echo chroot; unshare --mount true && echo unshare
        setpriv --reuid 1000 --clear-groups true && echo setuid
        setpriv --inh-caps +chown --ambient-caps +chown true && echo ambient
        touch /tmp/nix-csi-powers-$$; chown 1000 /tmp/nix-csi-powers-$$ && echo chown
        mount -t tmpfs x /proc && echo mount; rm -f /tmp/nix-csi-powers-$$";
    // Not in the namespace of the tests.
    let script = format!("exec unshare --mount sh -c '{}'", tries.replace('\n', ";"));
    let whole = run(&Guard::default(), &script).out;
    assert_eq!(whole, "chroot\nunshare\nsetuid\nambient\nchown\nmount\n");
    assert_eq!(run(&with(NOTHING), tries).out, "");
}

/// Nobody keeps CAP_SYS_NICE, and a user of no privileges is none that could do without.
#[test]
fn who_yields_the_processors_does_so_for_good() {
    if !can_jail("who_yields_the_processors_does_so_for_good") {
        return;
    }
    // The policy, of proc_pid_stat(5): 0 is the usual one, 5 is SCHED_IDLE.
    let script = "cut -d ' ' -f 41 /proc/self/stat; ionice -p $$ | cut -d : -f 1
        chrt --other --pid 0 $$ >/dev/null 2>&1 && echo back";
    assert_eq!(run(&with(DAEMON), script).out, "0\nnone\nback\n");
    let jailed = Guard { keeps: Some(NOTHING), filtered: true, ..jailed(Vec::new()) };
    for guard in [with(DAEMON), jailed] {
        let said = run(&Guard { yields: true, ..guard }, script);
        assert_eq!(said.out, "5\nbest-effort\n", "{}", said.err);
    }
}

/// A guard that keeps little ends whatever its program has started, as whomever.
#[test]
fn what_runs_as_another_user_is_ended_all_the_same() {
    if !can_jail("what_runs_as_another_user_is_ended_all_the_same") {
        return;
    }
    let script = "setpriv --reuid 30778 --clear-groups sh -c 'setsid sleep 1000 & echo $!; wait'";
    let mut guarded = Guarded::start(&with(DAEMON), script);
    let other = guarded.process();
    guarded.close_lifeline();
    guarded.wait();
    assert!(!other.is_alive());
}

const EPERM: i32 = libc::EPERM;
const ENOSYS: i32 = libc::ENOSYS;
/// An address that is nobody's, a number that names nothing.
const NONE: i64 = -1;

/// Calls that a process of root's gets past the first look with: they do nothing, since what they are given
/// is nonsense, but for those that end with this process.
fn calls() -> Vec<(&'static str, Vec<i64>, i32)> {
    let nonsense = |name, number| (name, vec![number, NONE, NONE, NONE, NONE, NONE], EPERM);
    let mut all: Vec<_> = [
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("chroot", libc::SYS_chroot),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
        ("fspick", libc::SYS_fspick),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("name_to_handle_at", libc::SYS_name_to_handle_at),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("swapon", libc::SYS_swapon),
        ("ptrace", libc::SYS_ptrace),
        ("process_vm_readv", libc::SYS_process_vm_readv),
        ("pidfd_getfd", libc::SYS_pidfd_getfd),
        ("setns", libc::SYS_setns),
        ("sethostname", libc::SYS_sethostname),
        ("init_module", libc::SYS_init_module),
        ("finit_module", libc::SYS_finit_module),
        ("delete_module", libc::SYS_delete_module),
        ("kexec_load", libc::SYS_kexec_load),
        ("reboot", libc::SYS_reboot),
        ("bpf", libc::SYS_bpf),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("syslog", libc::SYS_syslog),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("keyctl", libc::SYS_keyctl),
    ]
    .into_iter()
    .map(|(name, number)| nonsense(name, number))
    .collect();
    let flags = |name, number, flags: i32, refusal| (name, vec![number, flags.into(), 0], refusal);
    all.extend([
        // With what is refused by the kernel once it looks at it: nothing is started.
        flags("clone", libc::SYS_clone, libc::CLONE_NEWUSER | libc::CLONE_FS, EPERM),
        ("clone3", vec![libc::SYS_clone3, NONE, 8], ENOSYS),
        ("socket netlink", vec![libc::SYS_socket, libc::AF_NETLINK.into(), 3, 0], 0),
        ("socket packet", vec![libc::SYS_socket, libc::AF_PACKET.into(), 3, 0], EPERM),
        ("socket alg", vec![libc::SYS_socket, libc::AF_ALG.into(), 5, 0], EPERM),
        ("socket vsock", vec![libc::SYS_socket, libc::AF_VSOCK.into(), 1, 0], EPERM),
        ("socket unix", vec![libc::SYS_socket, libc::AF_UNIX.into(), 1, 0], 0),
        ("socket inet", vec![libc::SYS_socket, libc::AF_INET.into(), 1, 0], 0),
        ("socket inet6", vec![libc::SYS_socket, libc::AF_INET6.into(), 1, 0], 0),
        // Last: a user namespace of its own gives nothing of this one.
        flags("unshare user", libc::SYS_unshare, libc::CLONE_NEWUSER, EPERM),
        flags("unshare mount", libc::SYS_unshare, libc::CLONE_NEWNS | libc::CLONE_FS, EPERM),
    ]);
    all
}

/// The error of each call, 0 for none.
fn errors(guard: &Guard, calls: &[(&str, Vec<i64>, i32)]) -> BTreeMap<String, i32> {
    let lines = calls.iter().map(|(name, args, _)| {
        let args: Vec<_> = args.iter().map(i64::to_string).collect();
        format!("say(q({name}), {});", args.join(", "))
    });
    let perl = format!(
        "$| = 1; sub say {{ my $name = shift; my $number = shift; $! = 0; \
         my $done = syscall($number, @_); printf qq(%s=%d\\n), $name, $done == -1 ? $! + 0 : 0; }} {}",
        lines.collect::<String>()
    );
    let said = run(guard, &format!("exec perl -e '{perl}'"));
    let pairs = said.out.lines().filter_map(|line| line.split_once('='));
    let errors: BTreeMap<_, _> =
        pairs.map(|(name, error)| (name.to_owned(), error.parse().unwrap())).collect();
    assert_eq!(errors.len(), calls.len(), "{said:?}");
    errors
}

#[test]
fn calls_that_change_the_machine_are_refused() {
    if !can_jail("calls_that_change_the_machine_are_refused") {
        return;
    }
    let calls = calls();
    let wanted = calls.iter().map(|(name, _, error)| ((*name).to_owned(), *error));
    let wanted: BTreeMap<_, _> = wanted.collect();
    let open = errors(&Guard::default(), &calls);
    let refused = wanted.iter().filter(|(_, error)| **error != 0);
    let already = refused.filter(|(name, error)| open[*name] == **error).collect::<Vec<_>>();
    assert!(already.is_empty(), "refused without the filter: {already:?}");
    for guard in [Guard::default(), jailed(vec![])] {
        assert_eq!(errors(&Guard { filtered: true, ..guard }, &calls), wanted);
    }
}

/// What a shell, git and ssh do all the time: processes, threads, pipes, and what asks for other threads.
#[test]
fn what_is_filtered_works_as_before() {
    if !can_jail("what_is_filtered_works_as_before") {
        return;
    }
    let guard = Guard { filtered: true, ..jailed(vec![]) };
    let script = "echo a | tr a b | (read -r x; echo $x); (sleep 0.01 & wait); \
        tar -C /usr/bin -cf - env | tar -tf -; grep ^Seccomp: /proc/self/status | tr '\\t' ' '";
    let said = run(&guard, script);
    assert_eq!((&*said.out, &*said.err), ("b\nenv\nSeccomp: 2\n", ""));
}

/// What a command says below a filter of ours that takes new ones from it, as a kernel without them would.
fn without_filters(mut command: Command) -> Output {
    let to_set_one = u64::from(libc::PR_SET_SECCOMP.cast_unsigned());
    let to_set_one =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, to_set_one).unwrap();
    let prctl = vec![SeccompRule::new(vec![to_set_one]).unwrap()];
    let refused = BTreeMap::from([(libc::SYS_seccomp, vec![]), (libc::SYS_prctl, prctl)]);
    let refusal = SeccompAction::Errno(ENOSYS.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, refusal, arch).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    // Of this thread alone, and of what it starts.
    let run = move || {
        apply_filter(&filter).unwrap();
        command.output().unwrap()
    };
    std::thread::spawn(run).join().unwrap()
}

#[test]
fn without_seccomp_a_node_says_so_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let node = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nix-csi"));
        command.args(["node", "--nix", "/no/nix", "--run-dir"]).arg(dir.path().join("run"));
        command.arg("--state-dir").arg(dir.path().join("state")).args(more);
        let said = without_filters(command);
        assert_eq!(said.status.code(), Some(1), "{said:?}");
        String::from_utf8(said.stderr).unwrap().lines().last().unwrap().to_owned()
    };
    let said = node(&[]);
    let wanted =
        "nix-csi: can't refuse system calls to Nix's programs: seccomp: Function not implemented";
    assert!(said.starts_with(wanted) && said.contains("--privileges all"), "{said}");
    // The way out leads to the next thing that is missing.
    assert!(node(&["--privileges", "all"]).starts_with("nix-csi: can't run /no/nix"));
}

/// Another architecture's calls end who makes them, and so does the guard end.
#[test]
fn what_a_refused_call_ends_is_seen_to() {
    let said = run(&Guard::default(), "kill -SYS $$");
    assert_eq!(said.status.signal(), Some(libc::SIGSYS), "{said:?}");
}
