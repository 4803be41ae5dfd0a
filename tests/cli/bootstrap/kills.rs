//! Killed at any moment and run again: as if it had not been killed.

use std::fs;

use nix_csi::nix::bootstrap::CRASH_POINTS;
use rusqlite::{Connection, OpenFlags};

use super::{Host, entries, environment};
use crate::lab;
use crate::lab::{Lab, closure_of, wait_for};

/// What it left, until the guard has ended Nix.
fn ended(lab: &Lab) {
    wait_for("Nix to end", || !lab.processes().iter().any(|line| line.contains("nix-store")));
}

/// What is valid is whole, and what is shown is there, before anybody repairs anything.
fn assert_no_harm(lab: &Lab, host: &Host, environment: &str) {
    if lab.inside(|| host.at("var/nix/db/schema").try_exists().unwrap()) {
        host.assert_sound(lab);
    }
    let result = host.result(lab);
    if !result.is_empty() {
        assert_eq!(result, environment);
        host.ok(lab, "nix-store", &["--check-validity", &result]);
    }
}

/// No harm was done, and the next run finishes.
fn assert_repaired(lab: &Lab, host: &Host, environment: &str) {
    assert_no_harm(lab, host, environment);
    host.bootstrap(lab, &[environment]).success();
    remove_locks(lab, host, environment);
    host.assert_has_only(lab, environment);
}

/// A Nix that is killed once a path is registered leaves its empty lock beside it, for a collector to remove.
fn remove_locks(lab: &Lab, host: &Host, environment: &str) {
    for path in closure_of(lab, environment) {
        let lock = host.at("store").join(format!("{}.lock", path.rsplit('/').next().unwrap()));
        lab.inside(|| match fs::metadata(&lock) {
            Ok(found) if found.len() == 0 => fs::remove_file(&lock).unwrap(),
            Ok(found) => panic!("{} has {} bytes", lock.display(), found.len()),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
        });
    }
}

#[test]
fn death_at_each_point_is_repaired_by_the_next_run() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 500);
    for point in CRASH_POINTS {
        let host = host.store(&lab, point);
        let said = host.bootstrap(&lab, &["--crash-at", point, &environment]);
        assert_eq!((said.code, &*said.out), (None, ""), "{point}: {said:?}");
        ended(&lab);
        assert_repaired(&lab, &host, &environment);
    }
}

/// From the outside, when there is so much in the store.
#[test]
fn kills_while_nix_writes_are_repaired_by_the_next_run() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 500);
    let mut early = 0;
    for most in 1..=13 {
        let host = host.store(&lab, &most.to_string());
        let mut running = host.bootstrapping(&lab, &[&environment]).spawn().unwrap();
        wait_for("paths in the store", || {
            entries(&lab, &host.at("store")) >= most || running.try_wait().unwrap().is_some()
        });
        // The machine's guard and Nix end with it.
        lab::signal_inside(&running, rustix::process::Signal::KILL);
        early += usize::from(!running.wait().unwrap().success());
        ended(&lab);
        assert_repaired(&lab, &host, &environment);
    }
    assert!(early > 6, "{early} of 13 were killed before they ended");
}

/// Of a Nix that was killed while it made its database, SQLite's journal is left, which no reader can undo.
#[test]
fn a_database_that_was_being_written_is_brought_into_order() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 200);
    let [db, journal] = ["db.sqlite", "db.sqlite-journal"];
    let made = lab.path("made");
    fs::create_dir(&made).unwrap();
    let connection = Connection::open(made.join(db)).unwrap();
    connection.execute_batch("create table x (y); insert into x values (zeroblob(90000))").unwrap();
    // What does not fit into its memory is written before its end.
    connection.execute_batch("pragma cache_size = 1; begin; update x set y = 1").unwrap();
    connection.execute_batch("insert into x values (zeroblob(90000))").unwrap();
    lab.inside(|| {
        fs::create_dir_all(host.at("var/nix/db")).unwrap();
        for name in [db, journal] {
            fs::copy(made.join(name), host.at("var/nix/db").join(name)).unwrap();
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let reader = Connection::open_with_flags(host.at("var/nix/db/db.sqlite"), flags).unwrap();
        reader.execute_batch("select * from x").unwrap_err();
    });
    host.bootstrap(&lab, &[&environment]).success();
    host.assert_has_only(&lab, &environment);
}

/// Nix dies in the middle of a path, as of too little memory, and it is told.
#[test]
fn a_nix_that_is_killed_is_told_and_nothing_is_shown() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 200);
    let mut command = host.bootstrapping(&lab, &[&environment]);
    let running = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut pid = None;
    wait_for("Nix to write", || {
        let all = lab.processes();
        let nix = all.iter().find(|line| line.contains("--import") && !line.contains("guard"));
        pid = nix.and_then(|line| line.split(' ').next().map(str::to_owned));
        pid.is_some()
    });
    lab.kill(&pid.unwrap());
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("nix-store --import failed"), "{output:?}");
    assert_eq!(host.result(&lab), "");
    assert_repaired(&lab, &host, &environment);
}
