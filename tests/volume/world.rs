//! What these tests ask of a machine again and again.

use std::path::PathBuf;

use crate::lab::{self, Lab, Volume};
pub(crate) use crate::lab::{
    Gate, NO_IDLE, assert_all_ok, assert_nothing_left, assert_shows as assert_shows_paths,
    closure_of, code, leftovers, names, publish_all, target_mounts, unpublish_all, until, volumes,
};

/// The whole of that path's closure, and nothing else.
pub(crate) fn assert_shows(lab: &Lab, volume: &Volume, root: &str) {
    lab::assert_shows(lab, volume, &closure_of(lab, root));
}

pub(crate) fn record(lab: &Lab, volume: &Volume) -> PathBuf {
    lab.path("run/volumes").join(format!("{}.json", volume.id))
}

/// A program in a mount namespace in which the volume is the machine's `/nix`.
pub(crate) fn in_volume(lab: &Lab, volume: &Volume, script: &str) -> String {
    let script = format!("set -e; mount --rbind {} /nix; {script}", volume.target.display());
    lab.ok("unshare", &["--mount", "--", "sh", "-c", &script])
}
