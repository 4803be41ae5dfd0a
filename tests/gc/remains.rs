//! What lies in the store and is not valid.

use std::fs;

use crate::lab;
use crate::lab::Lab;
use crate::store::strays;
use crate::world::{assert_sound, gc, valid};

fn noted(lab: &Lab) -> std::path::PathBuf {
    lab.path("nix/var/nix/nix-csi-gc.lock")
}

fn name(path: &str) -> String {
    path["/nix/store/".len()..].to_owned()
}

/// Only a deletion that was begun is gone on with: whatever else is not valid may be somebody's, such as of a
/// database that was restored.
#[test]
fn what_was_begun_is_ended_and_nothing_else_is_touched() {
    let lab = lab!();
    let held = lab.closure(&["--argstr", "seed", "held"]);
    let [begun, lost] = ["begun", "lost"].map(|seed| lab.unrooted(&["--argstr", "seed", seed]));
    // As after a kill in the middle: Nix has forgotten it, and half of it is there.
    let forget = |path: &str| {
        let delete = "delete from Refs where referrer = (select id from ValidPaths where path = ";
        let rows = format!("{delete}'{path}'); delete from ValidPaths where path = '{path}'");
        crate::world::change(&lab, &rows);
    };
    forget(&begun);
    forget(&lost);
    fs::write(noted(&lab), format!("{begun}\n{held}\n/nix/store/cut")).unwrap();
    gc(&lab, &["--older-than", "1h"]).unwrap();
    assert_eq!(strays(&lab), [name(&lost)]);
    assert!(valid(&lab).contains(&held));
    assert_eq!(fs::read_to_string(noted(&lab)).unwrap(), "");
    // Its own lock file is all that a second one leaves.
    gc(&lab, &["--older-than", "1h"]).unwrap();
    assert_eq!(strays(&lab), [name(&lost)]);
    fs::remove_dir_all(lab.path(&lost[1..])).unwrap();
    assert_sound(&lab);
}
