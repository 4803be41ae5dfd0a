//! What volumes leave behind.

use std::fs;
use std::path::Path;

use super::{Lab, eventually};

/// Nothing stays for the next volume.
pub const NO_IDLE: &[&str] = &["--keep-idle", "0s"];

/// Sorted names in a directory of this mount namespace.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn target_mounts(lab: &Lab) -> Vec<String> {
    lab.mounts_below(&lab.path("targets"))
}

/// What volumes leave behind that is there: mounts, targets, records, writable layers.
pub fn leftovers(lab: &Lab) -> Vec<String> {
    let mut left = target_mounts(lab);
    left.extend(names(&lab.path("targets")));
    left.extend(names(&lab.path("run/volumes")));
    left.extend(lab.names("/nix/var/nix-csi/volumes"));
    left
}

/// Of a node with [`NO_IDLE`]: no trace of a volume, a view or a root.
pub fn assert_nothing_left(lab: &Lab) {
    assert_eq!(leftovers(lab), [""; 0]);
    let dirs = ["nix-csi/views", "nix/gcroots/nix-csi/views", "nix/gcroots/nix-csi/builds"];
    eventually("the views to go", || dirs.iter().all(|d| names_in_var(lab, d).is_empty()));
    assert_eq!(lab.mounts_below(Path::new("/nix/var")), [""; 0]);
}

fn names_in_var(lab: &Lab, dir: &str) -> Vec<String> {
    names(&lab.path("nix/var").join(dir))
}
