//! What these tests ask of a store, and put into it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::lab::Lab;
pub(crate) use crate::lab::{assert_shows, closure_of};
use crate::world::valid;

const CLOSURES: &str = include_str!("../data/closures.nix");
/// Paths that nothing holds, with so many files each, and derivations that refer to each other.
pub(crate) fn garbage(lab: &Lab, seed: &str, count: usize, files: usize) {
    let dir = lab.path(&format!("garbage-{seed}"));
    let path = |n: usize| dir.join(format!("{seed}-{n}"));
    for n in 0..count {
        fs::create_dir_all(path(n)).unwrap();
        for file in 0..files {
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

/// What lies in the store and is no valid path, but for locks.
pub(crate) fn strays(lab: &Lab) -> Vec<String> {
    let valid = valid(lab);
    let names = lab.names("/nix/store").into_iter();
    let is_path = |name: &String| name != ".links" && name.strip_suffix(".lock").is_none();
    names.filter(|name| is_path(name) && !valid.contains(&format!("/nix/store/{name}"))).collect()
}

/// Nothing else in a machine does this.
const HANGS: &str = "sleep 86399";

/// A directory of Nix's programs, of which `nix-store` hangs where it is told to.
pub(crate) struct Hanging {
    pub(crate) dir: PathBuf,
}

impl Hanging {
    /// It hangs when it has the option, does `how` on a shell's words, and is not told to end.
    pub(crate) fn at(lab: &Lab, option: &str, how: &str) -> Self {
        let hanging = Self { dir: lab.path("hanging") };
        fs::create_dir(&hanging.dir).unwrap();
        let dir = hanging.dir.display();
        let real = |name: &str| lab.ok("sh", &["-c", "command -v $0", name]);
        let script = format!(
            "case \" $* \" in *\" {option} \"*) [ -e {dir}/free ] || {{ {how}; exec {HANGS}; }};; esac\n"
        );
        for (name, script) in [("nix-store", &*script), ("nix", ""), ("nix-daemon", "")] {
            let text = format!("#!/bin/sh\n{script}exec {} \"$@\"\n", real(name));
            fs::write(hanging.dir.join(name), text).unwrap();
            fs::set_permissions(hanging.dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        hanging
    }

    /// For `--nix`.
    pub(crate) fn nix(&self) -> String {
        self.dir.join("nix").to_str().unwrap().to_owned()
    }

    /// Nothing hangs from now on but what does.
    pub(crate) fn free(&self) {
        fs::write(self.dir.join("free"), "").unwrap();
    }
}

/// Those that hang at this moment.
pub(crate) fn hang(lab: &Lab) -> Vec<String> {
    lab.processes().into_iter().filter(|line| line.ends_with(HANGS)).collect()
}
