//! Where a store lies is nobody's to write but root's.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::planted;

/// As an emptyDir and some claims are.
#[tokio::test]
async fn a_volume_that_everybody_could_write_to_is_closed() {
    let lab = planted!();
    let nix = lab.path("nix");
    for (given, kept) in [(0o777, 0o775), (0o1777, 0o1775), (0o755, 0o755)] {
        lab.inside(|| fs::set_permissions("/nix", Permissions::from_mode(given))).unwrap();
        let mut node = lab.node(&[]).await;
        let mode = fs::metadata(&nix).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, kept, "of {given:o}: {mode:o}");
        node.stop();
    }
}
