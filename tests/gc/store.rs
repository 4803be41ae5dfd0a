//! What these tests ask of a store, and put into it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::compare;
use crate::lab::{Lab, Volume, names};

const CLOSURES: &str = include_str!("../data/closures.nix");
/// Files of one path that [`garbage`] makes.
const FILES: usize = 8;

/// A node that collects all the time whatever nothing holds.
pub(crate) const EAGER: &[&str] = &[
    "--gc-older-than",
    "0s",
    "--gc-grace",
    "0s",
    "--gc-interval",
    "200ms",
    "--gc-look-interval",
    "100ms",
    "--gc-high-watermark",
    "100",
];

/// Paths with files that nothing holds, and derivations that refer to each other.
pub(crate) fn garbage(lab: &Lab, seed: &str, count: usize) {
    let dir = lab.path(&format!("garbage-{seed}"));
    let path = |n: usize| dir.join(format!("{seed}-{n}"));
    for n in 0..count {
        fs::create_dir_all(path(n)).unwrap();
        for file in 0..FILES {
            fs::write(path(n).join(file.to_string()), format!("{seed} {n} {file}\n")).unwrap();
        }
    }
    let paths: Vec<_> = (0..count).map(|n| path(n).to_str().unwrap().to_owned()).collect();
    let paths: Vec<_> = ["--add"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    lab.ok("nix-store", &paths);
    let number = (count / 4).max(2).to_string();
    lab.ok(
        "nix-instantiate",
        &["--arg", "paths", &number, "--argstr", "seed", seed, "-E", CLOSURES],
    );
    fs::remove_dir_all(dir).unwrap();
}

/// What the database has.
pub(crate) fn valid(lab: &Lab) -> BTreeSet<String> {
    lab.inside(|| {
        let database = rusqlite::Connection::open("/nix/var/nix/db/db.sqlite").unwrap();
        database.busy_timeout(std::time::Duration::from_secs(5)).unwrap();
        let mut all = database.prepare("select path from ValidPaths").unwrap();
        let all = all.query_map((), |row| row.get(0)).unwrap();
        all.map(Result::unwrap).collect()
    })
}

/// What lies in the store and is no valid path.
pub(crate) fn strays(lab: &Lab) -> Vec<String> {
    let valid = valid(lab);
    let names = lab.names("/nix/store").into_iter();
    names
        .filter(|name| name != ".links" && !valid.contains(&format!("/nix/store/{name}")))
        .collect()
}

pub(crate) fn closure_of(lab: &Lab, root: &str) -> BTreeSet<String> {
    lab.ok("nix-store", &["-qR", root]).lines().map(str::to_owned).collect()
}

/// Reads all of the volume, which shows these paths.
pub(crate) fn assert_shows(lab: &Lab, volume: &Volume, paths: &BTreeSet<String>) {
    let shown = volume.target.join("store");
    lab.inside(|| {
        let name = |path: &String| path.strip_prefix("/nix/store/").unwrap().to_owned();
        assert_eq!(names(&shown), paths.iter().map(name).collect::<Vec<_>>());
        for path in paths {
            compare::same(Path::new(path), &shown.join(name(path)), true);
        }
    });
}

/// Nix finds nothing to complain of.
pub(crate) fn assert_sound(lab: &Lab) {
    let verified = lab.run("nix-store", &["--verify", "--check-contents"]);
    let said = String::from_utf8(verified.stderr).unwrap();
    let routine = [
        "reading the Nix store...",
        "checking path existence...",
        "checking link hashes...",
        "checking store hashes...",
    ];
    let is_news = |line: &&str| !line.starts_with("checking ") && !routine.contains(line);
    let news: Vec<_> = said.lines().filter(is_news).collect();
    assert!(verified.status.success() && news.is_empty(), "{news:?}");
}
