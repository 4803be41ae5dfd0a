//! `kill -9` at every step of a volume's life: a fresh process either finishes it or cleans up.
#![cfg(debug_assertions)]

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use nix_csi::model::{Shape, VolumeSize};
use nix_csi::mount::{Attached, CRASH_POINTS, Mounts, Presentation, RealMounts};

use crate::compare;
use crate::world::{BOTH, World, assert_loops_below, can_bound, in_namespace, volume};

const VARIABLE: &str = "MOUNT_TEST_LIFE";
const SIGKILL: i32 = 9;
const BOUNDED: Shape = Shape::Bounded(VolumeSize::MIN);

fn life(world: &World, mounts: &RealMounts, shape: Shape) {
    let (target, vol) = (world.target("a"), volume("v"));
    world.view(mounts, 1).unwrap();
    mounts.attach(&world.id(1), &target, &vol, shape).unwrap();
    mounts.detach(&target, &vol).unwrap();
    mounts.remove_view(&world.id(1)).unwrap();
}

/// Not a test: the process that dies, started by the tests below in their mount namespace.
#[test]
fn helper() {
    let Some(spec) = std::env::var_os(VARIABLE) else {
        return;
    };
    let spec = spec.into_string().unwrap();
    let (point, presentation, shape, when, base) = {
        let mut parts = spec.splitn(5, ';').map(str::to_owned);
        let mut next = || parts.next().unwrap();
        (next(), next(), next(), next(), next())
    };
    let world = World::at(Path::new(&base));
    let presentation = BOTH.into_iter().find(|p| format!("{p:?}") == presentation);
    let shapes = [Shape::ReadOnly, Shape::Idmapped, Shape::Writable, BOUNDED];
    let shape = shapes.into_iter().find(|a| format!("{a:?}") == shape);
    if when == "start" {
        nix_csi::crash::arm(&point).unwrap();
    }
    let mounts = world.open(presentation.unwrap());
    nix_csi::crash::arm(&point).unwrap();
    life(&world, &mounts, shape.unwrap());
}

/// Whether the process died where it was told to.
fn die(world: &World, presentation: Presentation, shape: Shape, point: &str, when: &str) -> bool {
    let base = world.base.display();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crashes::helper", "--nocapture"])
        .env(VARIABLE, format!("{point};{presentation:?};{shape:?};{when};{base}"))
        .output()
        .unwrap()
        .status;
    assert!(status.success() || status.signal() == Some(SIGKILL), "{point}: {status}");
    !status.success()
}

/// What the driver does after its start with a volume that is still wanted.
fn finish(world: &World, mounts: &RealMounts, shape: Shape, what: &str) {
    let (target, vol, id) = (world.target("a"), volume("v"), world.id(1));
    let view = match mounts.reopen_view(&id).unwrap() {
        Some(view) => view,
        None => world.view(mounts, 1).unwrap(),
    };
    assert_eq!(view.paths, 4, "{what}");
    mounts.attach(&id, &target, &vol, shape).unwrap();
    let found = mounts.attached(&id, &target, &vol, shape).unwrap();
    assert_eq!(found, Attached::Ours, "{what}");
    let expected = if shape == Shape::Idmapped { 3 } else { 1 };
    assert_eq!(world.mounts_below(&world.pods), expected, "{what}");
    assert_eq!(world.mounts_below(&world.views), 1, "{what}");
    assert_eq!(world.mounts_below(&world.volumes), 0, "{what}");
    assert_loops_below(&world.base, usize::from(shape == BOUNDED), what);
    for info in world.closure().paths {
        let name = info.path.base_name();
        let shown = target.as_path().join("store").join(name);
        compare::same(&world.store.join(name), &shown, true);
    }
    let db = fs::read(target.as_path().join("var/nix/db/db.sqlite")).unwrap();
    assert_eq!(db, b"rows", "{what}");
}

/// What it does with one that nobody wants any more.
fn clean_up(world: &World, mounts: &RealMounts, what: &str) {
    mounts.detach(&world.target("a"), &volume("v")).unwrap();
    for volume in mounts.list_volume_files().unwrap() {
        mounts.detach(&world.target("a"), &volume).unwrap();
    }
    for view in mounts.list_views().unwrap() {
        mounts.remove_view(&view).unwrap();
    }
    assert_eq!(world.mounts_below(&world.base), 0, "{what}");
    assert_loops_below(&world.base, 0, what);
    for dir in [&world.views, &world.volumes] {
        assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "{what}: {}", dir.display());
    }
    assert!(!world.target("a").as_path().try_exists().unwrap(), "{what}");
}

/// Whether a volume of this shape comes along the point in its life.
fn is_passed(point: &str, shape: Shape) -> bool {
    match point {
        "attach-image-made" | "attach-image-shown" => shape == BOUNDED,
        "attach-files-made" | "attach-record-written" => shape.is_writable(),
        "attach-top-shown" | "attach-part-shown" | "detach-part-unmounted" => {
            shape == Shape::Idmapped
        }
        _ => true,
    }
}

fn at_every_point(presentation: Presentation, shape: Shape) {
    in_namespace(move |world| {
        for point in CRASH_POINTS {
            let what = format!("{point}, {presentation:?}, {shape:?}");
            let died = die(world, presentation, shape, point, "later");
            assert_eq!(died, is_passed(point, shape), "{what}");
            let mounts = world.open(presentation);
            finish(world, &mounts, shape, &what);
            clean_up(world, &mounts, &what);

            die(world, presentation, shape, point, "later");
            let mounts = world.open(presentation);
            mounts.clear_unused_volume_files().unwrap();
            clean_up(world, &mounts, &what);
        }
        assert!(die(world, presentation, shape, "view-skeleton-made", "start"));
        clean_up(world, &world.open(presentation), "a start");
    });
}

#[test]
fn a_redirect_views_read_only_volume_survives() {
    at_every_point(Presentation::Redirect, Shape::ReadOnly);
}

#[test]
fn a_redirect_views_idmapped_volume_survives() {
    at_every_point(Presentation::Redirect, Shape::Idmapped);
}

#[test]
fn a_redirect_views_writable_volume_survives() {
    at_every_point(Presentation::Redirect, Shape::Writable);
}

#[test]
fn a_hard_link_views_read_only_volume_survives() {
    at_every_point(Presentation::Hardlink, Shape::ReadOnly);
}

#[test]
fn a_hard_link_views_idmapped_volume_survives() {
    at_every_point(Presentation::Hardlink, Shape::Idmapped);
}

#[test]
fn a_hard_link_views_writable_volume_survives() {
    at_every_point(Presentation::Hardlink, Shape::Writable);
}

#[test]
fn a_redirect_views_bounded_volume_survives() {
    if can_bound() {
        at_every_point(Presentation::Redirect, BOUNDED);
    }
}

#[test]
fn a_hard_link_views_bounded_volume_survives() {
    if can_bound() {
        at_every_point(Presentation::Hardlink, BOUNDED);
    }
}

/// At the start, before anything is known of the volume.
#[test]
fn what_a_death_leaves_of_a_bounded_volume_is_unused() {
    if !can_bound() {
        return;
    }
    in_namespace(|world| {
        for point in ["attach-image-made", "attach-image-shown", "attach-files-made"] {
            assert!(die(world, BOTH[0], BOUNDED, point, "later"));
            assert!(world.volumes.join("v/image").is_file());
            world.open(BOTH[0]).clear_unused_volume_files().unwrap();
            assert_eq!(fs::read_dir(&world.volumes).unwrap().count(), 0, "{point}");
            assert_loops_below(&world.base, 0, point);
        }
    });
}
