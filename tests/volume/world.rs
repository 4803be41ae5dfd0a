//! What these tests ask of a machine again and again.

use std::path::{Path, PathBuf};

use crate::compare;
pub(crate) use crate::lab::{
    Gate, NO_IDLE, assert_all_ok, assert_nothing_left, code, leftovers, names, publish_all,
    target_mounts, unpublish_all, until, volumes,
};
use crate::lab::{Lab, Volume};

pub(crate) fn closure_of(lab: &Lab, root: &str) -> Vec<String> {
    lab.ok("nix-store", &["-qR", root]).lines().map(str::to_owned).collect()
}

/// Every entry of the volume's store is the store's own, and there are no others.
pub(crate) fn assert_shows(lab: &Lab, volume: &Volume, root: &str) {
    let paths = closure_of(lab, root);
    assert_shows_paths(lab, volume, &paths);
}

pub(crate) fn assert_shows_paths(lab: &Lab, volume: &Volume, paths: &[String]) {
    let shown = volume.target.join("store");
    lab.inside(|| {
        let name = |path: &String| path.strip_prefix("/nix/store/").unwrap().to_owned();
        let mut expected: Vec<_> = paths.iter().map(name).collect();
        expected.sort();
        assert_eq!(names(&shown), expected);
        for path in paths {
            compare::same(Path::new(path), &shown.join(name(path)), true);
        }
    });
}

pub(crate) fn record(lab: &Lab, volume: &Volume) -> PathBuf {
    lab.path("run/volumes").join(format!("{}.json", volume.id))
}

/// A program in a mount namespace in which the volume is the machine's `/nix`.
pub(crate) fn in_volume(lab: &Lab, volume: &Volume, script: &str) -> String {
    let script = format!("set -e; mount --rbind {} /nix; {script}", volume.target.display());
    lab.ok("unshare", &["--mount", "--", "sh", "-c", &script])
}
