//! What is there afterwards.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use tokio::time::Instant;

use super::{Host, copied, environment};
use crate::lab;
use crate::lab::{Lab, closure_of};

/// A program that can't be run: whoever starts one fails.
const NO_NIX: &[&str] = &["--nix", "/nonexistent/nix"];

#[expect(clippy::explicit_write, reason = "the harness captures eprintln")]
fn tell(what: &str, took: Duration) {
    use std::io::Write;
    writeln!(std::io::stderr(), "{what} took {} ms", took.as_millis()).unwrap();
}

#[test]
fn a_closure_gets_to_another_file_system_and_a_second_run_starts_nothing() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 200);
    let said = host.bootstrap(&lab, &[NO_NIX, &[&environment]].concat());
    assert!(said.failure().contains("/nonexistent/nix"), "{said:?}");
    assert_eq!(host.result(&lab), "");

    let began = Instant::now();
    let said = host.bootstrap(&lab, &[&environment]);
    tell("a bootstrap of 12 paths", began.elapsed());
    assert_eq!(said.success(), copied(&environment, 12));
    // ext4 has a directory of its own at its top.
    assert_eq!(lab.inside(|| lab::names(&host.0)), ["lost+found", "store", "var"]);
    host.assert_has_only(&lab, &environment);
    // Where it will be, not where it was made.
    assert_eq!(host.leads(&lab, "var/nix/gcroots/profiles"), "/nix/var/nix/profiles");

    let began = Instant::now();
    let said = host.bootstrap(&lab, &[NO_NIX, &[&environment]].concat());
    tell("a bootstrap of what was there", began.elapsed());
    assert_eq!(said.success(), format!("{environment} was in place"));
    host.assert_has_only(&lab, &environment);

    // Whatever of it is gone comes again.
    for gone in ["var/result", "var/nix/gcroots/nix-csi/bootstrap/current"] {
        lab.inside(|| fs::remove_file(host.at(gone)).unwrap());
        assert_eq!(host.bootstrap(&lab, &[&environment]).success(), copied(&environment, 0));
        host.assert_has_only(&lab, &environment);
    }
}

#[test]
fn shapes_of_all_kinds_are_what_they_were() {
    let lab = lab!();
    let odd = lab.odd();
    let host = Host::new(&lab, 100);
    lab.inside(|| symlink(&odd, "/nix/var/result").unwrap());
    let paths = closure_of(&lab, &odd).len();
    assert_eq!(host.bootstrap(&lab, &[]).success(), copied(&odd, paths));
    host.assert_has_only(&lab, &odd);
    for path in closure_of(&lab, &odd) {
        let there = host.ok(&lab, "nix-store", &["-q", "--hash", &path]);
        assert_eq!(there, lab.ok("nix-store", &["-q", "--hash", &path]), "{path}");
        let there = host.ok(&lab, "nix-store", &["-q", "--references", &path]);
        assert_eq!(there, lab.ok("nix-store", &["-q", "--references", &path]), "{path}");
    }
}

/// As an init container has it that is not privileged, with a read-only root file system.
#[test]
fn an_image_that_is_read_only_and_few_capabilities_are_enough() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 200);
    let script = "mount --bind /nix /nix && mount -o remount,bind,ro /nix && \
                  mount -o remount,bind,ro / && ! touch /nix/x && ! touch /x && exec \"$@\"";
    let mut command = lab.command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh", "setpriv"]);
    command.args(["--bounding-set", "-all,+chown,+dac_override,+fowner,+kill"]);
    command.arg(env!("CARGO_BIN_EXE_nix-csi"));
    let output = command.args(["bootstrap", "--to", host.text(), &environment]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    host.assert_has_only(&lab, &environment);
}

/// Removes what nothing holds, as the store's owner would.
fn collect(lab: &Lab, host: &Host) {
    host.ok(lab, "nix-store", &["--gc"]);
}

#[test]
fn the_environment_before_stays_until_the_next_but_one() {
    let lab = lab!();
    let [a, b, c] = ["a", "b", "c"].map(|variant| environment(&lab, variant));
    let host = Host::new(&lab, 200);
    let is_valid = |path: &str| {
        collect(&lab, &host);
        host.command(&lab, "nix-store", &["--check-validity", path])
            .output()
            .unwrap()
            .status
            .success()
    };
    host.bootstrap(&lab, &[&a]).success();
    // What they share is not copied again.
    assert_eq!(host.bootstrap(&lab, &[&b]).success(), copied(&b, 3));
    assert_eq!((host.result(&lab), host.link(&lab, "previous")), (b.clone(), a.clone()));
    assert!(is_valid(&a) && is_valid(&b));
    // A rollback.
    host.bootstrap(&lab, &[&a]).success();
    assert_eq!((host.result(&lab), host.link(&lab, "previous")), (a.clone(), b.clone()));
    assert!(is_valid(&a) && is_valid(&b));
    host.bootstrap(&lab, &[&c]).success();
    assert_eq!((host.result(&lab), host.link(&lab, "previous")), (c.clone(), a.clone()));
    assert!(is_valid(&a) && !is_valid(&b) && is_valid(&c));

    // One that was killed before it was shown was nobody's.
    let said = host.bootstrap(&lab, &["--crash-at", "bootstrap-rooted", &b]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert_eq!((host.result(&lab), host.link(&lab, "current")), (c.clone(), b.clone()));
    host.bootstrap(&lab, &[&a]).success();
    assert_eq!((host.result(&lab), host.link(&lab, "previous")), (a, c));
    host.assert_sound(&lab);
}
