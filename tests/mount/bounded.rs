//! Writable volumes with a size: what is full is the volume and nothing else.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::Duration;

use nix_csi::model::Shape::{Bounded, Writable};
use nix_csi::model::{Shape, VolumeSize};
use nix_csi::mount::{Attached, MountError, Mounts, Presentation, RealMounts, Usage};
use tokio::time::Instant;

use crate::world::{
    BOTH, World, assert_loops_below, can_bound, in_namespace, lose_mount, mount_tmpfs, unmount,
    volume,
};

const SMALL: Shape = Bounded(VolumeSize::MIN);
const MIB: u64 = 1 << 20;

fn in_bounding_namespace(test: impl Fn(&World) + Send + Sync + 'static) {
    if can_bound() {
        in_namespace(test);
    }
}

fn wait_for(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "waited in vain");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Writes until there is no space: the bytes written.
fn fill(path: &Path) -> u64 {
    let mut file = File::create(path).unwrap();
    let block = vec![7; 1 << 16];
    loop {
        match file.write(&block) {
            Ok(0) => panic!("a write of nothing"),
            Ok(_) => {}
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::StorageFull, "{e}");
                return file.metadata().unwrap().len();
            }
        }
    }
}

fn fill_with_files(dir: &Path) -> usize {
    // ext4 may refuse until it has given back what was removed before.
    wait_for(|| fs::create_dir(dir).is_ok());
    for n in 0.. {
        if let Err(e) = File::create(dir.join(n.to_string())) {
            assert_eq!(e.kind(), ErrorKind::StorageFull, "{e}");
            return n;
        }
    }
    unreachable!()
}

/// On disk.
fn image_bytes(world: &World, name: &str) -> u64 {
    fs::metadata(world.volumes.join(name).join("image")).unwrap().blocks() * 512
}

fn usage(mounts: &RealMounts, name: &str) -> Usage {
    mounts.writable_usage(&volume(name)).unwrap()
}

fn assert_nothing_left(world: &World) {
    assert_eq!(fs::read_dir(&world.volumes).unwrap().count(), 0);
    assert_eq!(world.mounts_below(&world.volumes) + world.mounts_below(&world.pods), 0);
    assert_loops_below(&world.base, 0, "the end");
}

#[test]
fn a_full_volume_is_full_for_its_pod_alone() {
    for presentation in BOTH {
        in_bounding_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let [full, other, free] = ["a", "b", "c"].map(|pod| world.target(pod));
            for (target, name, shape) in
                [(&full, "a", SMALL), (&other, "b", SMALL), (&free, "c", Writable)]
            {
                mounts.attach(&world.id(1), target, &volume(name), shape).unwrap();
            }
            let written = fill(&full.as_path().join("big"));
            assert!((14 * MIB..16 * MIB).contains(&written), "{written}");
            let now = usage(&mounts, "a");
            assert!(now.bytes_available < MIB / 2 && now.bytes_used >= written, "{now:?}");
            // A copy of a file of the store's is a write too.
            let root = world.closure().root;
            let hello = Path::new("store").join(root.base_name()).join("bin/hello");
            fs::set_permissions(
                other.as_path().join(&hello),
                fs::metadata(full.as_path().join(&hello)).unwrap().permissions(),
            )
            .unwrap();
            for writable in [other.as_path(), free.as_path(), &world.store, &world.volumes] {
                fs::write(writable.join("more"), vec![1; 1 << 20]).unwrap();
            }
            fs::remove_file(world.volumes.join("more")).unwrap();
            assert!(usage(&mounts, "b").bytes_used < 3 * MIB);

            // ext4 gives what was removed back to its image first.
            let remove = |name| {
                fs::remove_file(full.as_path().join(name)).unwrap();
                wait_for(|| usage(&mounts, "a").bytes_available > written / 2);
            };
            remove("big");
            let again = fill(&full.as_path().join("again"));
            assert!(written.abs_diff(again) < MIB / 2, "{written}, then {again}");
            remove("again");
            let files = fill_with_files(&full.as_path().join("many"));
            assert!((1800..2100).contains(&files), "{files}");
            assert_eq!(usage(&mounts, "a").inodes_available, 0);
            File::create(other.as_path().join("one")).unwrap();

            for (target, name) in [(&full, "a"), (&other, "b"), (&free, "c")] {
                mounts.detach(target, &volume(name)).unwrap();
            }
            assert_nothing_left(world);
        });
    }
}

#[test]
fn a_full_and_busy_volume_stays_until_it_is_free() {
    in_bounding_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let (target, vol) = (world.target("a"), volume("a"));
        mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap();
        fill(&target.as_path().join("big"));
        let open = File::open(target.as_path().join("big")).unwrap();
        let e = mounts.detach(&target, &vol).unwrap_err();
        assert!(matches!(e, MountError::Busy { .. }), "{e}");
        // The next process finds it as it is, and mounts nothing on it.
        let next = world.open(Presentation::Redirect);
        next.clear_unused_volume_files().unwrap();
        next.attach(&world.id(1), &target, &vol, SMALL).unwrap();
        assert_eq!(world.mounts_below(&world.pods), 1);
        assert_loops_below(&world.base, 1, "one");
        assert!(usage(&next, "a").bytes_available < MIB / 2);
        drop(open);
        next.detach(&target, &vol).unwrap();
        assert_nothing_left(world);
    });
}

/// Another one's mount of the volume keeps its file system, and nothing else of it.
#[test]
fn a_copy_of_the_mount_outlives_the_volume() {
    in_bounding_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let (target, vol) = (world.target("a"), volume("a"));
        mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap();
        let copy = world.base.join("copy");
        fs::create_dir(&copy).unwrap();
        rustix::mount::mount_bind(target.as_path(), &copy).unwrap();
        mounts.detach(&target, &vol).unwrap();
        assert_eq!(fs::read_dir(&world.volumes).unwrap().count(), 0);
        fs::write(copy.join("more"), "more").unwrap();
        mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap();
        assert!(!target.as_path().join("more").is_file());
        unmount(&copy);
        mounts.detach(&target, &vol).unwrap();
        assert_nothing_left(world);
    });
}

#[test]
fn blocks_are_the_nodes_when_written_and_given_back_when_deleted() {
    in_bounding_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let (target, vol) = (world.target("a"), volume("a"));
        let size = Bounded(VolumeSize::parse("1Gi").unwrap());
        mounts.attach(&world.id(1), &target, &vol, size).unwrap();
        let big = target.as_path().join("big");
        // An overlay that is volatile does not do it for itself.
        let write_out = rustix::fs::sync;
        write_out();
        let empty = image_bytes(world, "a");
        assert!(empty < MIB, "{empty}");
        fs::write(&big, vec![1; 32 << 20]).unwrap();
        write_out();
        let written = image_bytes(world, "a");
        assert!((32 * MIB..34 * MIB).contains(&written), "{written}");
        fs::remove_file(&big).unwrap();
        write_out();
        let deleted = image_bytes(world, "a");
        assert!(deleted < 2 * MIB, "{deleted}");
        mounts.detach(&target, &vol).unwrap();
        assert_nothing_left(world);
    });
}

#[test]
fn many_at_once_get_file_systems_of_their_own() {
    in_bounding_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let names: Vec<_> = (0..12).map(|n| format!("v{n}")).collect();
        let targets: Vec<_> = names.iter().map(|name| world.target(name)).collect();
        let start = Barrier::new(names.len());
        std::thread::scope(|scope| {
            for (name, target) in names.iter().zip(&targets) {
                let (mounts, start) = (&mounts, &start);
                scope.spawn(move || {
                    start.wait();
                    mounts.attach(&world.id(1), target, &volume(name), SMALL).unwrap();
                    fs::write(target.as_path().join("mine"), name).unwrap();
                });
            }
        });
        assert_loops_below(&world.base, names.len(), "all");
        for (name, target) in names.iter().zip(&targets) {
            assert_eq!(fs::read_to_string(target.as_path().join("mine")).unwrap(), *name);
            mounts.detach(target, &volume(name)).unwrap();
        }
        assert_nothing_left(world);
    });
}

/// A container's `/dev` has the nodes of its start.
#[test]
fn device_nodes_that_are_missing_are_made() {
    in_bounding_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        mount_tmpfs(Path::new("/dev"), "size=1m");
        fs::write("/dev/null", "").unwrap(); // mkfs's standard input
        let (target, vol) = (world.target("a"), volume("a"));
        for _ in 0..2 {
            mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap();
            mounts.detach(&target, &vol).unwrap();
        }
        lose_mount(Path::new("/dev"));
        assert_nothing_left(world);
    });
}

#[test]
fn a_node_that_can_not_keep_a_size_says_what_it_lacks() {
    in_bounding_namespace(|world| {
        world.view(&world.open(Presentation::Redirect), 1).unwrap();
        let (target, vol) = (world.target("a"), volume("a"));
        let bin = Path::new("/usr/sbin").canonicalize().unwrap();
        let dev = PathBuf::from("/dev");
        let hidden = [(bin, "mkfs.ext4", "e2fsprogs"), (dev, "/dev/loop-control", "privileged")];
        for (dir, name, hint) in hidden {
            mount_tmpfs(&dir, "size=1m");
            fs::write(dir.join("null"), "").unwrap();
            fs::create_dir(dir.join("loop-control")).unwrap();
            let mounts = world.open(Presentation::Redirect);
            let said = mounts.bounded_refusal().unwrap().to_owned();
            assert_eq!(mounts.writable_refusal(), None);
            let e = mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap_err();
            assert!(matches!(e, MountError::Unbounded { .. }), "{e}");
            for text in [&said, &e.to_string()] {
                assert!(text.contains(name) && text.contains(hint), "{text}");
            }
            assert_nothing_left(world);
            // Others go on.
            mounts.attach(&world.id(1), &target, &vol, Writable).unwrap();
            mounts.detach(&target, &vol).unwrap();
            lose_mount(&dir);
            // What it lacked is there now: no start is needed.
            mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap();
            mounts.detach(&target, &vol).unwrap();
        }
        assert_eq!(world.open(Presentation::Redirect).bounded_refusal(), None);
    });
}

/// The tables of the new file system are the first that don't fit.
#[test]
fn a_full_node_is_no_node_without_sizes() {
    in_bounding_namespace(|world| {
        let state = world.base.join("state");
        mount_tmpfs(&state, "size=4m");
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        fill(&state.join("filler"));
        let (target, vol) = (world.target("a"), volume("a"));
        let e = mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap_err();
        assert!(matches!(e, MountError::NoSpace { .. }), "{e}");
        assert_nothing_left(world);
        fs::remove_file(state.join("filler")).unwrap();
        mounts.attach(&world.id(1), &target, &vol, SMALL).unwrap();
        mounts.detach(&target, &vol).unwrap();
        assert_nothing_left(world);
    });
}

/// Written by a version that knew no sizes.
#[test]
fn a_volume_without_a_size_in_its_record_is_unbounded() {
    in_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let (target, vol) = (world.target("a"), volume("a"));
        mounts.attach(&world.id(1), &target, &vol, Writable).unwrap();
        let file = world.volumes.join("a/volume.json");
        let mut record: serde_json::Value =
            serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        record.as_object_mut().unwrap().remove("size").unwrap();
        fs::write(&file, record.to_string()).unwrap();
        let found = mounts.attached(&world.id(1), &target, &vol, Writable).unwrap();
        assert_eq!(found, Attached::Ours);
        mounts.detach(&target, &vol).unwrap();
        assert_nothing_left(world);
    });
}

/// A size reserves nothing: a node that runs full loses the writes of the volume, and no more.
#[test]
fn a_volume_that_outgrows_its_node_is_unpublished_all_the_same() {
    in_bounding_namespace(|world| {
        mount_tmpfs(&world.base.join("state"), "size=12m");
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let (target, vol) = (world.target("a"), volume("a"));
        let size = Bounded(VolumeSize::parse("64Mi").unwrap());
        mounts.attach(&world.id(1), &target, &vol, size).unwrap();
        // How much of it fails, and when, is the page cache's affair.
        let _ = fs::write(target.as_path().join("big"), vec![1; 32 << 20]);
        rustix::fs::sync();
        let found = mounts.attached(&world.id(1), &target, &vol, size).unwrap();
        assert_eq!(found, Attached::Ours);
        mounts.detach(&target, &vol).unwrap();
        assert_nothing_left(world);
    });
}
