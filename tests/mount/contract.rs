//! What every implementation of `Mounts` promises: one suite over the stand-in and the kernel.

use std::path::PathBuf;

use nix_csi::model::Shape::{Bounded, Idmapped, ReadOnly, Writable};
use nix_csi::model::{Closure, Shape, TargetPath, VolumeId, VolumeSize};
use nix_csi::mount::fake::FakeMounts;
use nix_csi::mount::{Attached, MountError, Mounts, ViewId};

use crate::world::{
    BOTH, World, can_bound, in_namespace, lose_mount, mount_tmpfs, no_database, store_path, volume,
};

fn shapes() -> Vec<Shape> {
    let mut shapes = vec![ReadOnly, Idmapped, Writable];
    if can_bound() {
        shapes.extend([Bounded(VolumeSize::MIN), Bounded(VolumeSize::parse("32Mi").unwrap())]);
    }
    shapes
}

/// What the outside world does to an implementation.
trait Outside {
    fn target(&self, pod: &str) -> TargetPath;
    fn mount_foreign(&self, target: &TargetPath);
    fn lose_mount(&self, target: &TargetPath);
    /// One of the mounts of an idmapped volume.
    fn lose_part(&self, target: &TargetPath);
    fn lose_path(&self);
    fn while_busy(&self, target: &TargetPath, then: &dyn Fn());
}

struct Fake(FakeMounts);

impl Outside for Fake {
    fn target(&self, pod: &str) -> TargetPath {
        TargetPath::parse("target_path", &format!("/pods/{pod}/mount")).unwrap()
    }
    fn mount_foreign(&self, target: &TargetPath) {
        self.0.mount_foreign(target);
    }
    fn lose_mount(&self, target: &TargetPath) {
        self.0.lose_mount(target);
    }
    fn lose_part(&self, target: &TargetPath) {
        self.0.lose_part(target);
    }
    fn lose_path(&self) {
        self.0.lose_path(&store_path('1', "single.conf"));
    }
    fn while_busy(&self, target: &TargetPath, then: &dyn Fn()) {
        self.0.set_busy(target, true);
        then();
        self.0.set_busy(target, false);
    }
}

impl Outside for World {
    fn target(&self, pod: &str) -> TargetPath {
        self.target(pod)
    }
    fn mount_foreign(&self, target: &TargetPath) {
        mount_tmpfs(target.as_path(), "size=1m");
    }
    fn lose_mount(&self, target: &TargetPath) {
        lose_mount(target.as_path());
    }
    fn lose_part(&self, target: &TargetPath) {
        lose_mount(&target.as_path().join("var"));
    }
    fn lose_path(&self) {
        std::fs::remove_file(self.store.join(store_path('1', "single.conf").base_name())).unwrap();
    }
    fn while_busy(&self, target: &TargetPath, then: &dyn Fn()) {
        let open = std::fs::File::open(target.as_path().join("store")).unwrap();
        then();
        drop(open);
    }
}

fn closure() -> Closure {
    World::at(&PathBuf::new()).closure()
}

fn id(n: u64) -> ViewId {
    ViewId::new(&closure().root, n)
}

fn suite(mounts: &dyn Mounts, outside: &dyn Outside) {
    views(mounts);
    volumes(mounts, outside);
    foreign_and_busy(mounts, outside);
    half_made(mounts, outside);
    missing(mounts, outside);
}

fn views(mounts: &dyn Mounts) {
    assert_eq!(mounts.list_views().unwrap(), []);
    assert_eq!(mounts.reopen_view(&id(1)).unwrap(), None);
    let view = mounts.create_view(&id(1), &closure(), &no_database).unwrap();
    assert_eq!((view.paths, view.nar_size), (4, 400));
    assert_eq!(view.presentation, mounts.presentation());
    let again = mounts.create_view(&id(1), &closure(), &no_database).unwrap();
    assert_eq!(again, view);
    assert_eq!(mounts.reopen_view(&id(1)).unwrap(), Some(view));
    assert_eq!(mounts.list_views().unwrap(), [id(1)]);
    assert_eq!(mounts.replaced_paths(&id(1)).unwrap(), []);
    for _ in 0..2 {
        mounts.remove_view(&id(1)).unwrap();
        assert_eq!(mounts.list_views().unwrap(), []);
    }
    assert!(mounts.replaced_paths(&id(1)).is_err());
}

fn volumes(mounts: &dyn Mounts, outside: &dyn Outside) {
    mounts.create_view(&id(1), &closure(), &no_database).unwrap();
    mounts.create_view(&id(2), &closure(), &no_database).unwrap();
    for shape in shapes() {
        let (target, vol) = (outside.target("a"), volume("vol-a"));
        let at = |view, shape| mounts.attached(&view, &target, &vol, shape).unwrap();
        assert_eq!(at(id(1), shape), Attached::Nothing);
        mounts.attach(&id(1), &target, &vol, shape).unwrap();
        assert_eq!(at(id(1), shape), Attached::Ours);
        assert_eq!(at(id(2), shape), Attached::Foreign);
        for other in shapes().into_iter().filter(|other| *other != shape) {
            assert_eq!(at(id(1), other), Attached::Foreign);
        }
        mounts.attach(&id(1), &target, &vol, shape).unwrap();
        let files = mounts.list_volume_files().unwrap();
        assert_eq!(files, Vec::from_iter(shape.is_writable().then(|| vol.clone())));
        assert_usage(mounts, &vol, shape);

        let e = mounts.attach(&id(2), &target, &vol, shape).unwrap_err();
        assert!(matches!(e, MountError::Foreign { .. }), "{e}");
        let e = mounts.remove_view(&id(1)).unwrap_err();
        assert!(matches!(e, MountError::ViewInUse { .. }), "{e}");
        assert_eq!(at(id(1), shape), Attached::Ours);

        for _ in 0..2 {
            mounts.detach(&target, &vol).unwrap();
            assert_eq!(at(id(1), shape), Attached::Nothing);
            assert_eq!(mounts.list_volume_files().unwrap(), []);
        }
        // A mount that vanished is made again; the writable one's files are new.
        mounts.attach(&id(1), &target, &vol, shape).unwrap();
        outside.lose_mount(&target);
        assert_eq!(at(id(1), shape), Attached::Nothing);
        mounts.attach(&id(1), &target, &vol, shape).unwrap();
        assert_eq!(at(id(1), shape), Attached::Ours);
        mounts.detach(&target, &vol).unwrap();
    }
    assert!(mounts.attach(&id(9), &outside.target("b"), &volume("v"), ReadOnly).is_err());
    mounts.remove_view(&id(1)).unwrap();
    mounts.remove_view(&id(2)).unwrap();
}

fn foreign_and_busy(mounts: &dyn Mounts, outside: &dyn Outside) {
    mounts.create_view(&id(1), &closure(), &no_database).unwrap();
    for shape in shapes() {
        let (target, vol) = (outside.target("c"), volume("vol-c"));
        outside.mount_foreign(&target);
        let e = mounts.attach(&id(1), &target, &vol, shape).unwrap_err();
        assert!(matches!(e, MountError::Foreign { .. }), "{e}");
        let e = mounts.detach(&target, &vol).unwrap_err();
        assert!(matches!(e, MountError::Foreign { .. }), "{e}");
        let found = mounts.attached(&id(1), &target, &vol, shape).unwrap();
        assert_eq!(found, Attached::Foreign);
        outside.lose_mount(&target);

        mounts.attach(&id(1), &target, &vol, shape).unwrap();
        outside.while_busy(&target, &|| {
            let e = mounts.detach(&target, &vol).unwrap_err();
            assert!(matches!(e, MountError::Busy { .. }), "{e}");
            let found = mounts.attached(&id(1), &target, &vol, shape).unwrap();
            assert_eq!(found, Attached::Ours);
            let files = mounts.list_volume_files().unwrap();
            assert_eq!(files.len(), usize::from(shape.is_writable()));
        });
        mounts.detach(&target, &vol).unwrap();
    }
    mounts.remove_view(&id(1)).unwrap();
}

fn assert_usage(mounts: &dyn Mounts, vol: &VolumeId, shape: Shape) {
    let usage = mounts.writable_usage(vol);
    assert_eq!(usage.is_ok(), shape.is_writable(), "{usage:?}");
    let Some(size) = shape.size() else {
        return;
    };
    let usage = usage.unwrap();
    // Its own tables take some.
    let most = size.bytes() * 8 / 10..=size.bytes();
    assert!(
        most.contains(&usage.bytes_total) && most.contains(&usage.bytes_available),
        "{usage:?}"
    );
    assert!(usage.bytes_used <= size.bytes() / 10, "{usage:?}");
    assert!(usage.inodes_used < 20 && usage.inodes_available > 900, "{usage:?}");
}

/// What a death half-way leaves.
fn half_made(mounts: &dyn Mounts, outside: &dyn Outside) {
    mounts.create_view(&id(1), &closure(), &no_database).unwrap();
    mounts.create_view(&id(2), &closure(), &no_database).unwrap();
    let (target, vol) = (outside.target("d"), volume("vol-d"));
    let at = |view, vol: &VolumeId, shape| mounts.attached(&view, &target, vol, shape).unwrap();
    mounts.attach(&id(1), &target, &vol, Idmapped).unwrap();
    outside.lose_part(&target);
    assert_eq!(at(id(1), &vol, Idmapped), Attached::Nothing);
    assert_eq!(at(id(1), &vol, ReadOnly), Attached::Foreign);
    // Another volume's is not ours to complete or to remove.
    let other = volume("vol-e");
    assert_eq!(at(id(1), &other, Idmapped), Attached::Foreign);
    let results = [
        mounts.attach(&id(1), &target, &other, Idmapped),
        mounts.attach(&id(1), &target, &vol, ReadOnly),
        mounts.attach(&id(2), &target, &vol, Idmapped),
        mounts.detach(&target, &other),
    ];
    for result in results {
        assert!(matches!(result, Err(MountError::Foreign { .. })), "{result:?}");
    }
    let e = mounts.remove_view(&id(1)).unwrap_err();
    assert!(matches!(e, MountError::ViewInUse { .. }), "{e}");

    mounts.attach(&id(1), &target, &vol, Idmapped).unwrap();
    assert_eq!(at(id(1), &vol, Idmapped), Attached::Ours);
    outside.lose_part(&target);
    for _ in 0..2 {
        mounts.detach(&target, &vol).unwrap();
        assert_eq!(at(id(1), &vol, Idmapped), Attached::Nothing);
    }
    mounts.remove_view(&id(1)).unwrap();
    mounts.remove_view(&id(2)).unwrap();
}

fn missing(mounts: &dyn Mounts, outside: &dyn Outside) {
    mounts.create_view(&id(1), &closure(), &no_database).unwrap();
    outside.lose_path();
    let gone = store_path('1', "single.conf");
    assert_eq!(mounts.replaced_paths(&id(1)).unwrap(), *std::slice::from_ref(&gone));
    let e = mounts.create_view(&id(2), &closure(), &no_database).unwrap_err();
    assert!(matches!(&e, MountError::MissingPath { path } if *path == gone), "{e}");
    assert_eq!(mounts.list_views().unwrap(), [id(1)]);
    mounts.remove_view(&id(1)).unwrap();
}

#[test]
fn the_stand_in_keeps_the_contract() {
    let fake = FakeMounts::new();
    suite(&fake, &Fake(fake.clone()));
}

#[test]
fn the_kernel_keeps_the_contract() {
    for presentation in BOTH {
        in_namespace(move |world| suite(&world.open(presentation), world));
    }
}

#[test]
fn the_kernel_keeps_the_contract_with_views_on_another_file_system() {
    for presentation in BOTH {
        in_namespace(move |world| {
            mount_tmpfs(&world.base.join("state"), "size=64m");
            suite(&world.open(presentation), world);
        });
    }
}

#[test]
fn the_kernel_keeps_the_contract_with_shared_propagation() {
    for presentation in BOTH {
        in_namespace(move |world| {
            use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
            for dir in [world.base.join("state"), world.pods.clone()] {
                std::fs::create_dir_all(&dir).unwrap();
                mount_bind(&dir, &dir).unwrap();
                mount_change(&dir, MountPropagationFlags::SHARED).unwrap();
            }
            suite(&world.open(presentation), world);
        });
    }
}

#[test]
fn the_stand_in_fails_waits_and_counts_on_demand() {
    use nix_csi::mount::fake::Op;
    let fake = FakeMounts::new();
    fake.create_view(&id(1), &closure(), &no_database).unwrap();
    let target = Fake(fake.clone()).target("a");
    let path = PathBuf::from("/full");
    fake.fail_next(Op::Attach, MountError::NoSpace { path });
    let attach = |fake: &FakeMounts| fake.attach(&id(1), &target, &volume("v"), ReadOnly);
    assert!(matches!(attach(&fake), Err(MountError::NoSpace { .. })));
    assert_eq!((fake.mounted(), fake.calls(Op::Attach)), (0, 1));
    let hold = fake.hold(Op::Attach);
    std::thread::scope(|scope| {
        let held = scope.spawn(|| attach(&fake));
        hold.wait_for_calls(1);
        assert_eq!(fake.mounted(), 0);
        drop(hold);
        held.join().unwrap().unwrap();
    });
    assert_eq!((fake.mounted(), fake.calls(Op::Attach)), (1, 2));
}
