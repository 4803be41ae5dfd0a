//! A driver that is replaced while volumes are mounted.

use std::fs;

use nix_csi::model::Shape::{Idmapped, ReadOnly, Writable};
use nix_csi::mount::{Attached, MountError, Mounts};

use crate::compare;
use crate::world::{BOTH, in_namespace, unmount, volume};

#[test]
fn the_next_process_finds_views_and_volumes() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let first = world.open(presentation);
            let view = world.view(&first, 1).unwrap();
            let (ro, rw, mapped) = (world.target("a"), world.target("b"), world.target("d"));
            first.attach(&world.id(1), &ro, &volume("a"), ReadOnly).unwrap();
            first.attach(&world.id(1), &rw, &volume("b"), Writable).unwrap();
            first.attach(&world.id(1), &mapped, &volume("d"), Idmapped).unwrap();
            drop(first);
            let mnt = world.views.join(world.id(1).as_str()).join("mnt");
            // Once with the view's own mount still there, once (it died with the container) without.
            for lost in [false, true] {
                if lost {
                    unmount(&mnt);
                }
                let next = world.open(presentation);
                assert_eq!(next.list_views().unwrap(), [world.id(1)]);
                assert_eq!(next.reopen_view(&world.id(1)).unwrap().as_ref(), Some(&view));
                assert_eq!(world.mounts_below(&mnt), 1);
                let all = [(&ro, "a", ReadOnly), (&rw, "b", Writable), (&mapped, "d", Idmapped)];
                for (target, name, shape) in all {
                    let found = next.attached(&world.id(1), target, &volume(name), shape);
                    assert_eq!(found.unwrap(), Attached::Ours, "{name}, lost: {lost}");
                    next.attach(&world.id(1), target, &volume(name), shape).unwrap();
                }
                assert_eq!(world.mounts_below(&world.pods), 5);
                let e = next.remove_view(&world.id(1)).unwrap_err();
                assert!(matches!(e, MountError::ViewInUse { .. }), "{e}");
                let third = world.target("c");
                next.attach(&world.id(1), &third, &volume("c"), ReadOnly).unwrap();
                for info in world.closure().paths {
                    let name = info.path.base_name();
                    let store = third.as_path().join("store");
                    compare::same(&world.store.join(name), &store.join(name), true);
                }
                next.detach(&third, &volume("c")).unwrap();
            }
            let last = world.open(presentation);
            last.detach(&ro, &volume("a")).unwrap();
            last.detach(&rw, &volume("b")).unwrap();
            let e = last.remove_view(&world.id(1)).unwrap_err();
            assert!(matches!(e, MountError::ViewInUse { .. }), "{e}");
            last.detach(&mapped, &volume("d")).unwrap();
            last.remove_view(&world.id(1)).unwrap();
            assert_eq!(world.mounts_below(&world.base), 0);
            assert_eq!(fs::read_dir(&world.views).unwrap().count(), 0);
            assert_eq!(fs::read_dir(&world.volumes).unwrap().count(), 0);
        });
    }
}

#[test]
fn a_view_of_another_boot_is_made_anew() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let dir = world.views.join(world.id(1).as_str());
            unmount(&dir.join("mnt"));
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
            let record = fs::read_to_string(dir.join("view.json")).unwrap();
            let older = record.replace(boot.trim(), "another");
            assert_ne!(record, older);
            fs::write(dir.join("view.json"), older).unwrap();
            fs::write(dir.join("layer/v/store/stale"), "").unwrap();
            let mounts = world.open(presentation);
            assert_eq!(mounts.reopen_view(&world.id(1)).unwrap(), None);
            world.view(&mounts, 1).unwrap();
            assert!(!dir.join("layer/v/store/stale").is_file());
        });
    }
}

#[test]
fn an_unreadable_record_is_reported_and_nothing_is_removed() {
    in_namespace(|world| {
        let mounts = world.open(BOTH[0]);
        world.view(&mounts, 1).unwrap();
        let file = world.views.join(world.id(1).as_str()).join("view.json");
        fs::write(&file, "{").unwrap();
        for result in
            [mounts.reopen_view(&world.id(1)).map(|_| ()), world.view(&mounts, 1).map(|_| ())]
        {
            assert!(matches!(result, Err(MountError::Metadata { .. })), "{result:?}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"{");
        // A volume's: no view may be taken for unused.
        let target = world.target("a");
        world.view(&mounts, 2).unwrap();
        mounts.attach(&world.id(2), &target, &volume("v"), Writable).unwrap();
        fs::write(world.volumes.join("v/volume.json"), "").unwrap();
        let result = mounts.remove_view(&world.id(2));
        assert!(matches!(result, Err(MountError::Metadata { .. })), "{result:?}");
    });
}
