//! What a volume shows: exactly the closure, as it is in the store, and nothing that can be written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use nix_csi::model::Shape::{Idmapped, ReadOnly, Writable};
use nix_csi::mount::{Mounts, Presentation};
use rustix::io::Errno;

use crate::compare;
use crate::world::{BOTH, World, in_namespace, mount_tmpfs, store_path, unmount, volume};

pub(crate) fn shows_the_closure(world: &World, nix: &Path, inodes: bool) {
    for info in world.closure().paths {
        let name = info.path.base_name();
        compare::same(&world.store.join(name), &nix.join("store").join(name), inodes);
    }
    let list = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<_> = names.map(|n| n.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(list(nix), ["store", "var"]);
    let paths = world.closure().paths;
    let expected: Vec<_> = paths.iter().map(|p| p.path.base_name()).collect();
    assert_eq!(list(&nix.join("store")), expected);
    assert!(!nix.join("store").join(world.other().base_name()).is_dir());
    for link in ["var/result", "var/nix/gcroots/result"] {
        let goal = fs::read_link(nix.join(link)).unwrap();
        assert_eq!(goal.to_str().unwrap(), world.closure().root.to_string());
    }
    assert_eq!(fs::read(nix.join("var/nix/db/db.sqlite")).unwrap(), b"rows");
    for dir in ["", "store", "var", "var/nix", "var/nix/db", "var/nix/gcroots"] {
        let meta = fs::metadata(nix.join(dir)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o755, 0, 0), "{dir}");
    }
    let bin = nix.join("store").join(paths[0].path.base_name()).join("bin");
    assert_eq!(fs::read(bin.join("relative")).unwrap(), fs::read(bin.join("hi")).unwrap());
    if inodes {
        let inode = |name| fs::metadata(bin.join(name)).unwrap().ino();
        assert_eq!(inode("hello"), inode("hi"));
    }
}

pub(crate) fn refuses_writes(nix: &Path, world: &World) {
    let refused = |result: std::io::Result<()>, what: &str| {
        let e = result.expect_err(what);
        assert_eq!(Errno::from_io_error(&e), Some(Errno::ROFS), "{what}: {e}");
    };
    let root = nix.join("store").join(world.closure().root.base_name());
    refused(fs::write(nix.join("new"), ""), "a new file");
    for dir in ["store/new", "var/new", "var/nix/db/new"] {
        refused(fs::create_dir(nix.join(dir)), "a new directory");
    }
    refused(fs::write(root.join("bin/hello"), ""), "an old file");
    refused(fs::remove_file(root.join("bin/hello")), "a removal");
    let mode = fs::Permissions::from_mode(0o777);
    refused(fs::set_permissions(&root, mode), "a change of mode");
}

#[test]
fn a_read_only_volume_is_the_closure_and_can_not_be_written() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let before = fs::metadata(world.store.join(world.closure().root.base_name())).unwrap();
            // The umask must not show.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let mounts = world.open(presentation);
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            assert_eq!(mounts.fallback_reason(), None);
            assert_eq!(mounts.writable_refusal(), None);
            world.view(&mounts, 1).unwrap();
            let target = world.target("a");
            for (shape, below) in [(ReadOnly, &[""][..]), (Idmapped, &["", "store", "var"])] {
                mounts.attach(&world.id(1), &target, &volume("v"), shape).unwrap();
                shows_the_closure(world, target.as_path(), true);
                refuses_writes(target.as_path(), world);
                for mount in below {
                    let options = mount_options(&target.as_path().join(mount));
                    for option in ["ro", "nosuid", "nodev"] {
                        assert!(options.split(',').any(|o| o == option), "{mount}: {options}");
                    }
                }
                let root = world.store.join(world.closure().root.base_name());
                let after = fs::metadata(root).unwrap();
                assert_eq!(before.mtime_nsec(), after.mtime_nsec());
                mounts.detach(&target, &volume("v")).unwrap();
                assert!(!target.as_path().try_exists().unwrap());
            }
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        });
    }
}

#[test]
fn views_on_another_file_system_show_the_same() {
    for presentation in BOTH {
        in_namespace(move |world| {
            mount_tmpfs(&world.base.join("state"), "size=64m");
            let mounts = world.open(presentation);
            let told = mounts.fallback_reason().is_some_and(|r| r.contains("copied"));
            assert_eq!(told, presentation == Presentation::Hardlink);
            world.view(&mounts, 1).unwrap();
            for shape in [ReadOnly, Idmapped, Writable] {
                let target = world.target("a");
                mounts.attach(&world.id(1), &target, &volume("v"), shape).unwrap();
                shows_the_closure(world, target.as_path(), false);
                mounts.detach(&target, &volume("v")).unwrap();
            }
        });
    }
}

#[test]
fn what_is_mounted_below_a_view_is_not_in_its_volumes() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let inner = world.views.join(world.id(1).as_str()).join("mnt/v/var/nix/db");
            mount_tmpfs(&inner, "size=1m");
            for (shape, pod) in [(ReadOnly, "a"), (Idmapped, "b")] {
                let target = world.target(pod);
                mounts.attach(&world.id(1), &target, &volume(pod), shape).unwrap();
                shows_the_closure(world, target.as_path(), true);
                let db = target.as_path().join("var/nix/db/new");
                assert!(fs::write(db, "").is_err());
            }
            unmount(&inner);
        });
    }
}

#[test]
fn a_writable_volumes_writes_are_its_own() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let (one, two) = (world.target("a"), world.target("b"));
            mounts.attach(&world.id(1), &one, &volume("a"), Writable).unwrap();
            mounts.attach(&world.id(1), &two, &volume("b"), Writable).unwrap();
            shows_the_closure(world, one.as_path(), true);
            let root = Path::new("store").join(world.closure().root.base_name());
            let hello = one.as_path().join(&root).join("bin/hello");
            fs::write(&hello, "changed").unwrap();
            fs::write(one.as_path().join("new"), "new").unwrap();
            fs::remove_dir_all(one.as_path().join(&root).join("share")).unwrap();
            let single =
                one.as_path().join("store").join(store_path('1', "single.conf").base_name());
            fs::write(&single, "changed").unwrap();
            fs::rename(one.as_path().join("var/result"), one.as_path().join("moved")).unwrap();
            assert_eq!(fs::read_to_string(&hello).unwrap(), "changed");
            shows_the_closure(world, two.as_path(), true);
            let view = world.views.join(world.id(1).as_str()).join("mnt/v");
            shows_the_closure(world, &view, true);
            let used = mounts.writable_usage(&volume("a")).unwrap();
            assert!(used.bytes_total >= used.bytes_available && used.inodes_total > 0);
            assert!(used.bytes_used > 0);

            mounts.detach(&one, &volume("a")).unwrap();
            mounts.attach(&world.id(1), &one, &volume("a"), Writable).unwrap();
            shows_the_closure(world, one.as_path(), true);
        });
    }
}

#[test]
fn an_inode_with_all_its_links_is_shown_all_the_same() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let single = world.store.join(store_path('1', "single.conf").base_name());
            let full = world.base.join("links");
            fs::create_dir(&full).unwrap();
            let mut made = 0;
            while fs::hard_link(&single, full.join(made.to_string())).is_ok() {
                made += 1;
                assert!(made < 200_000, "no limit of links here");
            }
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let target = world.target("a");
            mounts.attach(&world.id(1), &target, &volume("v"), ReadOnly).unwrap();
            // A copy has an inode of its own; all else is as in the store.
            shows_the_closure(world, target.as_path(), false);
        });
    }
}

fn mount_options(at: &Path) -> String {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = text.lines().rfind(|l| Path::new(l.split(' ').nth(4).unwrap()) == at);
    line.unwrap().split(' ').nth(5).unwrap().to_owned()
}

#[test]
fn volumes_and_view_are_no_peers_of_each_other() {
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    for presentation in BOTH {
        in_namespace(move |world| {
            for dir in [world.base.join("state"), world.pods.clone()] {
                fs::create_dir_all(&dir).unwrap();
                mount_bind(&dir, &dir).unwrap();
                mount_change(&dir, MountPropagationFlags::SHARED).unwrap();
            }
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let (one, two) = (world.target("a"), world.target("b"));
            for target in [&one, &two] {
                mounts.attach(&world.id(1), target, &volume("v"), ReadOnly).unwrap();
            }
            let before = world.mounts_below(&world.base);
            mount_tmpfs(&one.as_path().join("var/nix/db"), "size=1m");
            assert_eq!(world.mounts_below(&world.base), before + 1);
        });
    }
}
