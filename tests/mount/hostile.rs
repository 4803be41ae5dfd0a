//! Targets, stores and disks that don't behave.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix_csi::model::Shape::{Idmapped, ReadOnly, Writable};
use nix_csi::model::{StorePath, TargetPath};
use nix_csi::mount::{Config, MountError, Mounts, Presentation, PresentationChoice, RealMounts};

use crate::world::{
    BOTH, file_in, in_namespace, mount_tmpfs, no_database, store_path, unmount, volume,
};

#[test]
fn a_target_is_never_reached_through_a_symlink_or_outside_the_roots() {
    in_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let good = world.target("a");
        let attach =
            |target: &TargetPath| mounts.attach(&world.id(1), target, &volume("v"), ReadOnly);
        attach(&good).unwrap();
        let elsewhere = world.base.join("elsewhere");
        fs::create_dir_all(elsewhere.join("mount")).unwrap();
        mount_tmpfs(&elsewhere.join("mount"), "size=1m");

        // A parent is swapped for a symlink while the volume is mounted.
        fs::create_dir_all(elsewhere.join("volumes/mount")).unwrap();
        mount_tmpfs(&elsewhere.join("volumes/mount"), "size=1m");
        let parents = [good.parent(), good.parent().parent().unwrap()];
        for parent in parents {
            fs::rename(parent, world.pods.join("moved")).unwrap();
            symlink(&elsewhere, parent).unwrap();
            for result in [
                attach(&good),
                mounts.detach(&good, &volume("v")),
                mounts.attached(&world.id(1), &good, &volume("v"), ReadOnly).map(|_| ()),
            ] {
                let e = result.unwrap_err();
                assert!(matches!(&e, MountError::Symlink { at, .. } if at == parent), "{e}");
            }
            assert_eq!(world.mounts_below(&elsewhere), 2);
            assert_eq!(world.mounts_below(&world.pods), 1);
            fs::remove_file(parent).unwrap();
            fs::rename(world.pods.join("moved"), parent).unwrap();
        }
        mounts.detach(&good, &volume("v")).unwrap();

        // The target itself is one.
        symlink(elsewhere.join("mount"), good.as_path()).unwrap();
        for result in [attach(&good), mounts.detach(&good, &volume("v"))] {
            assert!(matches!(result, Err(MountError::Symlink { .. })), "{result:?}");
        }
        fs::remove_file(good.as_path()).unwrap();
        fs::write(good.as_path(), "").unwrap();
        let result = attach(&good);
        assert!(matches!(result, Err(MountError::NotADirectory { .. })), "{result:?}");

        let result = attach(&world.target_at(&elsewhere.join("other")));
        assert!(matches!(result, Err(MountError::NotAllowed { .. })), "{result:?}");
        let result = attach(&world.target_at(&world.pods.join("none/mount")));
        assert!(matches!(result, Err(MountError::NoParent { .. })), "{result:?}");
        assert_eq!(world.mounts_below(&elsewhere), 2);
    });
}

#[test]
fn a_target_with_files_is_mounted_over_and_left() {
    in_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let target = world.target("a");
        fs::create_dir(target.as_path()).unwrap();
        fs::write(target.as_path().join("precious"), "").unwrap();
        mounts.attach(&world.id(1), &target, &volume("v"), ReadOnly).unwrap();
        mounts.detach(&target, &volume("v")).unwrap();
        assert!(target.as_path().join("precious").is_file());
    });
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    for presentation in BOTH {
        in_namespace(move |world| {
            mount_tmpfs(&world.base.join("state"), "size=4m,nr_inodes=16");
            let mounts = world.open(presentation);
            let e = world.view(&mounts, 1).unwrap_err();
            assert!(matches!(e, MountError::NoSpace { .. }), "{e}");
            assert_eq!(mounts.list_views().unwrap(), []);
            assert_eq!(world.mounts_below(&world.views), 0);
            // Also when it is the database that doesn't fit.
            rustix::mount::mount_remount(
                world.base.join("state"),
                rustix::mount::MountFlags::empty(),
                c"size=4m,nr_inodes=200",
            )
            .unwrap();
            let fill = |db: &std::path::Path| file_in(db, &vec![1; 8 << 20]);
            let e = mounts.create_view(&world.id(1), &world.closure(), &fill).unwrap_err();
            assert!(matches!(e, MountError::NoSpace { .. }), "{e}");
            assert_eq!(mounts.list_views().unwrap(), []);
            // The kernel gives back what was removed when the last mount has ended for good.
            let state = world.base.join("state");
            let is_free =
                || rustix::fs::statvfs(&state).is_ok_and(|fs| fs.f_bfree > fs.f_blocks / 2);
            let began = tokio::time::Instant::now();
            while !is_free() {
                assert!(began.elapsed().as_secs() < 20, "the space is not given back");
                std::thread::yield_now();
            }
            world.view(&mounts, 1).unwrap();
            // Writable volumes need space of their own.
            rustix::mount::mount_remount(
                world.base.join("state"),
                rustix::mount::MountFlags::empty(),
                c"size=4m,nr_inodes=1",
            )
            .ok();
            let mut filler = Vec::new();
            while let Ok(file) =
                fs::File::create(world.base.join(format!("state/{}", filler.len())))
            {
                filler.push(file);
            }
            let target = world.target("a");
            let e = mounts.attach(&world.id(1), &target, &volume("v"), Writable).unwrap_err();
            assert!(matches!(e, MountError::NoSpace { .. }), "{e}");
            assert!(!target.as_path().try_exists().unwrap());
            assert_eq!(mounts.list_volume_files().unwrap(), []);
            mounts.attach(&world.id(1), &target, &volume("v"), ReadOnly).unwrap();
        });
    }
}

#[test]
fn a_replaced_path_is_reported() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let odd = store_path('3', "odd+names");
            let at = |path: &StorePath| world.store.join(path.base_name());
            let aside = world.base.join("aside");
            fs::rename(at(&odd), &aside).unwrap();
            fs::create_dir(at(&odd)).unwrap();
            assert_eq!(mounts.replaced_paths(&world.id(1)).unwrap(), *std::slice::from_ref(&odd));
            fs::remove_dir(at(&odd)).unwrap();
            fs::rename(&aside, at(&odd)).unwrap();
            assert_eq!(mounts.replaced_paths(&world.id(1)).unwrap(), []);
        });
    }
}

#[test]
fn one_volume_at_two_targets_keeps_its_files() {
    in_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let (one, two, vol) = (world.target("a"), world.target("b"), volume("v"));
        mounts.attach(&world.id(1), &one, &vol, Writable).unwrap();
        fs::write(one.as_path().join("file"), "kept").unwrap();
        for result in [mounts.attach(&world.id(1), &two, &vol, Writable), mounts.detach(&two, &vol)]
        {
            let e = result.unwrap_err();
            assert!(matches!(&e, MountError::Busy { target } if *target == one), "{e}");
        }
        assert_eq!(fs::read_to_string(one.as_path().join("file")).unwrap(), "kept");
        mounts.detach(&one, &vol).unwrap();
        mounts.detach(&two, &vol).unwrap();
    });
}

#[test]
fn stacked_mounts_of_ours_all_go() {
    in_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let target = world.target("a");
        mounts.attach(&world.id(1), &target, &volume("v"), ReadOnly).unwrap();
        for _ in 0..3 {
            rustix::mount::mount_bind(target.as_path(), target.as_path()).unwrap();
        }
        assert_eq!(world.mounts_below(&world.pods), 4);
        mounts.detach(&target, &volume("v")).unwrap();
        assert_eq!(world.mounts_below(&world.pods), 0);
        mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
        for _ in 0..3 {
            rustix::mount::mount_bind_recursive(target.as_path(), target.as_path()).unwrap();
        }
        assert_eq!(world.mounts_below(&world.pods), 12);
        mounts.detach(&target, &volume("v")).unwrap();
        assert_eq!(world.mounts_below(&world.pods), 0);
    });
}

#[test]
fn a_mount_whose_files_are_gone_can_still_be_taken_off() {
    in_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        for (shape, pod) in [(ReadOnly, "a"), (Writable, "b"), (Idmapped, "c")] {
            let target = world.target(pod);
            mounts.attach(&world.id(1), &target, &volume("v"), shape).unwrap();
        }
        unmount(&world.views.join(world.id(1).as_str()).join("mnt"));
        fs::remove_dir_all(world.base.join("state")).unwrap();
        let mounts = world.open(Presentation::Redirect);
        mounts.detach(&world.target("a"), &volume("v")).unwrap();
        mounts.detach(&world.target("b"), &volume("v")).unwrap();
        mounts.detach(&world.target("c"), &volume("v")).unwrap();
        assert_eq!(world.mounts_below(&world.pods), 0);
    });
}

#[test]
fn directories_that_an_overlay_can_not_take_are_refused_at_the_start() {
    in_namespace(|world| {
        let refused = |change: &dyn Fn(&mut Config), part: &str| {
            let mut config = world.config(Presentation::Redirect);
            change(&mut config);
            let text = RealMounts::open(&config).unwrap_err().to_string();
            assert!(text.contains(part), "{text}");
        };
        for bad in ["a:b", "a,b", "a\\b"] {
            refused(&|c| c.views_dir = world.base.join(bad), "can't be given to an overlay");
        }
        refused(&|c| c.views_dir = world.base.join("x".repeat(100)), "bytes");
        refused(&|c| c.views_dir = world.store.join("views"), "must not be below");
        refused(&|c| c.store_dir = world.base.join("none"), "can't open");
        refused(&|c| c.target_roots.push(PathBuf::from("/none")), "target root");
    });
}

#[test]
fn a_store_that_can_not_be_a_layer_falls_back_and_says_why() {
    in_namespace(|world| {
        // Two overlays deep already: a third is one too many for the kernel.
        let mut lower = world.store.clone();
        for level in 0..2 {
            let part = |name: &str| {
                let dir = world.base.join(format!("{name}{level}"));
                fs::create_dir(&dir).unwrap();
                dir
            };
            let (empty, merged) = (part("empty"), part("merged"));
            let options = format!("lowerdir={}:{}", empty.display(), lower.display());
            let options = std::ffi::CString::new(options).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("o", &merged, "overlay", flags, options.as_c_str()).unwrap();
            lower = merged;
        }
        let mut config = world.config(Presentation::Redirect);
        config.store_dir = lower;
        let e = RealMounts::open(&config).unwrap_err();
        assert!(matches!(e, MountError::Io { .. }), "{e}");
        config.presentation = PresentationChoice::Auto;
        let mounts = RealMounts::open(&config).unwrap();
        assert_eq!(mounts.presentation(), Presentation::Hardlink);
        let reason = mounts.fallback_reason().unwrap();
        assert!(reason.contains("redirect views don't work here"), "{reason}");
        mounts.create_view(&world.id(1), &world.closure(), &no_database).unwrap();
        let target = world.target("a");
        mounts.attach(&world.id(1), &target, &volume("v"), Writable).unwrap();
    });
}

#[test]
fn an_empty_store_is_no_reason_to_fall_back() {
    in_namespace(|world| {
        let mut config = world.config(Presentation::Redirect);
        config.store_dir = world.base.join("empty");
        fs::create_dir(&config.store_dir).unwrap();
        config.presentation = PresentationChoice::Auto;
        let mounts = RealMounts::open(&config).unwrap();
        assert_eq!(mounts.presentation(), Presentation::Redirect);
        assert_eq!(mounts.fallback_reason(), None);
    });
}
