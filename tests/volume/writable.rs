//! Writable volumes.

use std::collections::BTreeSet;
use std::fs;

use crate::lab;
use crate::lab::Lab;
use crate::world::{NO_IDLE, assert_nothing_left, assert_shows, closure_of, in_volume};

#[tokio::test(flavor = "multi_thread")]
async fn nix_works_in_a_writable_volume_and_nothing_of_it_leaves() {
    let lab = lab!();
    for presentation in ["redirect", "hardlink"] {
        stays_inside(&lab, presentation).await;
    }
}

async fn stays_inside(lab: &Lab, presentation: &str) {
    let root = lab.closure(&[]);
    let node = lab.node(&[NO_IDLE, &["--presentation", presentation]].concat()).await;
    let volume = lab.volume("rw", &[("storePath", &root)]).writable();
    let reader = lab.volume("ro", &[("storePath", &root)]);
    let neighbour = lab.volume("rw2", &[("storePath", &root)]).writable();
    for volume in [&volume, &reader, &neighbour] {
        node.publish(volume).await.unwrap();
        assert_shows(lab, volume, &root);
    }

    let nix = "nix --extra-experimental-features nix-command --option substituters ''";
    let closure = closure_of(lab, &root);
    let asked = in_volume(lab, &volume, &format!("nix-store -qR {root}"));
    assert_eq!(asked.lines().map(str::to_owned).collect::<BTreeSet<_>>(), closure);
    let all = in_volume(lab, &volume, &format!("{nix} path-info --all | wc -l"));
    assert_eq!(all, closure.len().to_string());
    in_volume(lab, &volume, "nix-store --verify --check-contents");
    let added = in_volume(lab, &volume, "echo new > /tmp/added; nix-store --add /tmp/added");
    assert!(added.ends_with("-added"), "{added}");
    assert_eq!(
        in_volume(lab, &volume, &format!("cat {added}; nix-store -qR {added}")),
        format!("new\n{added}")
    );

    lab.inside(|| {
        let path = volume.target.join(root.strip_prefix("/nix/").unwrap());
        fs::write(path.join("etc/marker"), "changed").unwrap();
        fs::remove_dir_all(path.join("bin")).unwrap();
        fs::write(volume.target.join("var/state"), "kept").unwrap();
        assert_eq!(fs::read_to_string(path.join("etc/marker")).unwrap(), "changed");
    });
    // The store and its other volumes are as they were.
    assert!(!lab.run("ls", &[&added]).status.success());
    assert_eq!(lab.ok("cat", &[&format!("{root}/etc/marker")]), "small");
    lab.ok("nix-store", &["--verify", "--check-contents"]);
    for volume in [&reader, &neighbour] {
        assert_shows(lab, volume, &root);
    }

    // Published again, what was written is still there; unpublished, it is gone.
    node.publish(&volume).await.unwrap();
    assert_eq!(in_volume(lab, &volume, "cat /nix/var/state"), "kept");
    node.unpublish(&volume).await.unwrap();
    node.publish(&volume).await.unwrap();
    assert_shows(lab, &volume, &root);
    for volume in [&volume, &reader, &neighbour] {
        node.unpublish(volume).await.unwrap();
    }
    assert_nothing_left(lab);
}

/// Only the volume's own mount is nosuid; what a pod's root leaves in the layer must be out of
/// reach of the node's users. Records hold users' own text.
#[tokio::test(flavor = "multi_thread")]
async fn layers_and_records_are_for_root_alone() {
    let lab = lab!();
    let _node = lab.node(&[]).await;
    let modes = lab.ok("stat", &["-c", "%a", "/nix/var/nix-csi/volumes"]);
    assert_eq!(modes, "700");
    let records = lab.path("run/volumes");
    assert_eq!(lab.ok("stat", &["-c", "%a", records.to_str().unwrap()]), "700");
}
