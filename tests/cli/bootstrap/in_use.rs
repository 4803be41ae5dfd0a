//! A destination that others use at the same time.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use rustix::fs::{FlockOperation, flock};

use super::{Host, copied, entries, environment};
use crate::lab;
use crate::lab::wait_for;

#[test]
fn two_at_once_come_to_one() {
    let lab = lab!();
    let [a, b] = ["a", "b"].map(|variant| environment(&lab, variant));
    let host = Host::new(&lab, 300);
    for (n, pair) in [[&a, &a], [&a, &b]].into_iter().enumerate() {
        let host = host.store(&lab, &n.to_string());
        let both = pair.map(|environment| {
            let mut command = host.bootstrapping(&lab, &[environment]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        });
        for one in both {
            let output = one.wait_with_output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        host.assert_sound(&lab);
        let (result, current) = (host.result(&lab), host.link(&lab, "current"));
        assert_eq!(result, current);
        if pair[0] == pair[1] {
            host.assert_has_only(&lab, &a);
        } else {
            let other = if result == a { &b } else { &a };
            assert_eq!(&host.link(&lab, "previous"), other);
        }
    }
}

/// A driver of the former image builds all the while.
#[test]
fn a_daemon_at_work_there_disturbs_nothing_and_is_not_disturbed() {
    let lab = lab!();
    let [a, b] = ["a", "b"].map(|variant| environment(&lab, variant));
    let host = Host::new(&lab, 300);
    host.bootstrap(&lab, &[&a]).success();
    let expression = lab.path("closures.nix");
    fs::write(&expression, include_str!("../../data/closures.nix")).unwrap();
    let [expression, stop, built] =
        [expression, lab.path("stop"), lab.path("built")].map(|p| p.to_str().unwrap().to_owned());
    let script = "
        nix-daemon & daemon=$!
        until [ -S /nix/var/nix/daemon-socket/socket ]; do :; done
        n=0
        until [ -e \"$1\" ]; do
            NIX_REMOTE=daemon nix-build \"$0\" --no-out-link --option sandbox false \\
                --option substituters '' --argstr seed s$n >>\"$2\" || exit 1
            nix-store --gc >/dev/null || exit 2
            n=$((n + 1))
        done
        kill $daemon";
    let mut user = host.command(&lab, "bash", &["-c", script, &expression, &stop, &built]);
    let user = user.stderr(Stdio::piped()).spawn().unwrap();
    let builds = || fs::read_to_string(&built).map_or(0, |text| text.lines().count());
    wait_for("builds", || builds() > 0);
    for round in 0..4 {
        let environment = [&b, &a][round % 2];
        let said = host.bootstrap(&lab, &[environment]);
        assert!(said.success().contains("is in place"), "{said:?}");
        let seen = builds();
        wait_for("the next build", || builds() > seen);
    }
    fs::write(&stop, "").unwrap();
    let output = user.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    host.assert_sound(&lab);
    host.ok(&lab, "nix-store", &["--check-validity", &a, &b]);
}

/// A collection that has read the roots would not know the new ones, and links are of one environment.
#[test]
fn a_collection_and_another_bootstrap_are_waited_for() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 200);
    for name in ["gc.lock", "nix-csi-bootstrap.lock"] {
        let host = host.store(&lab, name);
        let lock = lab.inside(|| {
            fs::create_dir_all(host.at("var/nix")).unwrap();
            File::create(host.at("var/nix").join(name)).unwrap()
        });
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let mut command = host.bootstrapping(&lab, &[&environment]);
        let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
        wait_for("a wait for the lock", || {
            assert!(running.try_wait().unwrap().is_none(), "it waits for {name}");
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let ours = format!(":{} ", lock.metadata().unwrap().ino());
            locks.lines().any(|line| line.contains("->") && line.contains(&ours))
        });
        assert_eq!(entries(&lab, &host.at("store")), 0);
        drop(lock);
        let output = running.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), copied(&environment, 12));
        host.assert_has_only(&lab, &environment);
    }
}

/// Processes of another container have the same numbers as ours.
#[test]
fn temporary_roots_of_living_processes_of_the_same_numbers_stay() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 200);
    let last: u32 = lab.ok("bash", &["-c", "echo $$"]).parse().unwrap();
    let held: Vec<_> = lab.inside(|| {
        fs::create_dir_all(host.at("var/nix/temproots")).unwrap();
        let path = |pid: u32| host.at(&format!("var/nix/temproots/{pid}"));
        (last..last + 400).map(|pid| (path(pid), File::create(path(pid)).unwrap())).collect()
    });
    for (_, file) in &held {
        flock(file, FlockOperation::LockExclusive).unwrap();
    }
    host.bootstrap(&lab, &[&environment]).success();
    lab.inside(|| {
        for (path, file) in &held {
            let there = fs::metadata(path).map(|meta| meta.ino()).ok();
            assert_eq!(there, Some(file.metadata().unwrap().ino()), "{}", path.display());
        }
    });
    drop(held);
    host.assert_has_only(&lab, &environment);
}
