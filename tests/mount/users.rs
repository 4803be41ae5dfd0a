//! Volumes of pods with a user namespace: what a container runtime does with one, and what it finds.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix_csi::model::Shape::{Idmapped, ReadOnly};
use nix_csi::model::TargetPath;
use nix_csi::mount::{Attached, MountError, Mounts, Presentation};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_bind, mount_change,
    move_mount, open_tree,
};

use crate::presentation::{refuses_writes, shows_the_closure};
use crate::world::{BOTH, World, in_namespace, lose_mount, mount_tmpfs, volume};

const FIRST_ID: u32 = 100_000;

/// A user namespace, and the process that keeps it.
struct Users(Child);

impl Users {
    fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["--user", "--", "sh", "-c", "echo; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It says so when it is in there.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let users = Self(child);
        for map in ["uid_map", "gid_map"] {
            fs::write(users.proc(map), format!("0 {FIRST_ID} 65536")).unwrap();
        }
        users
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }

    /// A shell as its root, in the directory `at`.
    fn run(&self, at: &Path, script: &str) -> Output {
        let id = self.0.id().to_string();
        Command::new("nsenter")
            .args(["--user", "--target", &id, "--setuid", "0", "--setgid", "0", "sh", "-c", script])
            .current_dir(at)
            .output()
            .unwrap()
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        let _ = self.0.stdin.as_mut().map(|stdin| stdin.write_all(b"\n"));
        let _ = self.0.wait();
    }
}

#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    users: u64,
}

const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;

/// As runc does it with a volume: a copy of all its mounts, of which only the topmost is mapped.
fn idmap(target: &Path, users: &Users, flags: i32) -> Result<OwnedFd, Errno> {
    let clone = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(CWD, target, clone).unwrap();
    let namespace = File::open(users.proc("ns/user")).unwrap();
    let attr = MountAttr {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        users: namespace.as_raw_fd().try_into().unwrap(),
    };
    #[expect(unsafe_code, reason = "neither libc nor rustix wraps mount_setattr")]
    // SAFETY: a NUL-terminated path, and an `attr` that lives across the call and has the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(tree)
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap())
    }
}

fn attached(world: &World, mounts: &dyn Mounts, target: &TargetPath) -> Attached {
    mounts.attached(&world.id(1), target, &volume("v"), Idmapped).unwrap()
}

#[test]
fn a_runtime_can_idmap_the_volume_and_the_pod_can_read_it() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let (mounts, users) = (world.open(presentation), Users::new());
            world.view(&mounts, 1).unwrap();
            let target = world.target("a");
            mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
            let tree = idmap(target.as_path(), &users, 0).unwrap();
            let pod = world.base.join("pod");
            fs::create_dir(&pod).unwrap();
            move_mount(&tree, c"", CWD, &pod, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).unwrap();
            let owner = |path: &str| fs::metadata(pod.join(path)).unwrap().uid();
            assert_eq!((owner(""), owner("store"), owner("var")), (FIRST_ID, 0, 0));
            // The pod's root owns the top and sees the rest as nobody's, which it may read.
            let root = world.closure().root;
            let script = format!(
                "set -e; stat -c %u . store; cat store/{}/bin/hello var/nix/db/db.sqlite",
                root.base_name()
            );
            let said = users.run(&pod, &script);
            let text = String::from_utf8(said.stdout).unwrap();
            assert_eq!(
                text,
                "0\n65534\n#!/bin/sh\necho hello\nrows",
                "{said:?}",
                said = said.stderr
            );
            for path in ["x", "store/x", "var/x", "var/nix/db/db.sqlite"] {
                let said = users.run(&pod, &format!("echo > {path}"));
                let error = String::from_utf8(said.stderr).unwrap();
                let denied = ["Read-only file system", "Permission denied"];
                assert!(!said.status.success(), "{path}");
                assert!(denied.iter().any(|d| error.contains(d)), "{path}: {error}");
            }
            lose_mount(&pod);
            assert_eq!(attached(world, &mounts, &target), Attached::Ours);
            mounts.detach(&target, &volume("v")).unwrap();
        });
    }
}

/// Why there is a layout of its own: the kernel refuses an overlay, also below an idmapped top.
#[test]
fn a_runtime_can_not_idmap_an_overlay() {
    in_namespace(|world| {
        let (mounts, users) = (world.open(Presentation::Redirect), Users::new());
        world.view(&mounts, 1).unwrap();
        let (plain, parts) = (world.target("a"), world.target("b"));
        mounts.attach(&world.id(1), &plain, &volume("a"), ReadOnly).unwrap();
        mounts.attach(&world.id(1), &parts, &volume("b"), Idmapped).unwrap();
        let refused = |target: &TargetPath, flags| idmap(target.as_path(), &users, flags).err();
        assert_eq!(refused(&plain, 0), Some(Errno::INVAL));
        assert_eq!(refused(&parts, libc::AT_RECURSIVE), Some(Errno::INVAL));
        assert_eq!(refused(&parts, 0), None);
    });
}

#[test]
fn a_top_that_is_mounted_anew_without_its_attributes_takes_no_writes() {
    in_namespace(|world| {
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let target = world.target("a");
        mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
        rustix::mount::mount_remount(target.as_path(), MountFlags::BIND, c"").unwrap();
        refuses_writes(target.as_path(), world);
    });
}

/// The driver's mount namespace is its container's; the pods' mounts are copies in the host's.
#[test]
fn the_mounts_spread_complete_and_go_together() {
    for presentation in BOTH {
        in_namespace(move |world| {
            mount_bind(&world.pods, &world.pods).unwrap();
            mount_change(&world.pods, MountPropagationFlags::SHARED).unwrap();
            let host = world.base.join("host");
            fs::create_dir(&host).unwrap();
            mount_bind(&world.pods, &host).unwrap();
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let target = world.target("a");
            for half_made in [false, true] {
                mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
                if half_made {
                    lose_mount(&target.as_path().join("store"));
                    assert_eq!(world.mounts_below(&host), 3);
                    mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
                }
                assert_eq!(world.mounts_below(&host), 4);
                let seen = host.join(target.as_path().strip_prefix(&world.pods).unwrap());
                shows_the_closure(world, &seen, true);
                refuses_writes(&seen, world);
                mounts.detach(&target, &volume("v")).unwrap();
                assert_eq!(world.mounts_below(&host), 1);
                assert!(!seen.try_exists().unwrap());
            }
        });
    }
}

#[test]
fn one_that_is_busy_stays_whole() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let target = world.target("a");
            mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
            for used in ["", "store", "var"] {
                let open = File::open(target.as_path().join(used)).unwrap();
                let e = mounts.detach(&target, &volume("v")).unwrap_err();
                assert!(matches!(e, MountError::Busy { .. }), "{used}: {e}");
                assert_eq!(attached(world, &mounts, &target), Attached::Ours, "{used}");
                shows_the_closure(world, target.as_path(), true);
                refuses_writes(target.as_path(), world);
                drop(open);
            }
            mounts.detach(&target, &volume("v")).unwrap();
            assert_eq!(world.mounts_below(&world.pods), 0);
        });
    }
}

/// Whatever is missing of it: each of its mounts can be taken away by hand.
#[test]
fn a_half_made_one_is_completed_or_removed() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let target = world.target("a");
            let attach = || mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
            for missing in [&["store"][..], &["var"], &["store", "var"]] {
                let lose = || missing.iter().for_each(|m| lose_mount(&target.as_path().join(m)));
                attach();
                lose();
                assert_eq!(attached(world, &mounts, &target), Attached::Nothing, "{missing:?}");
                attach();
                assert_eq!(attached(world, &mounts, &target), Attached::Ours, "{missing:?}");
                assert_eq!(world.mounts_below(&world.pods), 3);
                shows_the_closure(world, target.as_path(), true);
                lose();
                mounts.detach(&target, &volume("v")).unwrap();
                assert_eq!(world.mounts_below(&world.base.join("pods")), 0);
                assert!(!target.as_path().try_exists().unwrap());
            }
        });
    }
}

#[test]
fn what_somebody_else_mounted_on_it_stays() {
    for presentation in BOTH {
        in_namespace(move |world| {
            let mounts = world.open(presentation);
            world.view(&mounts, 1).unwrap();
            let target = world.target("a");
            let inner = target.as_path().join("var");
            mounts.attach(&world.id(1), &target, &volume("v"), Idmapped).unwrap();
            for half_made in [false, true] {
                if half_made {
                    lose_mount(&inner);
                }
                mount_tmpfs(&inner, "size=1m");
                fs::write(inner.join("theirs"), "").unwrap();
                assert_eq!(attached(world, &mounts, &target), Attached::Foreign);
                let tried = [
                    mounts.attach(&world.id(1), &target, &volume("v"), Idmapped),
                    mounts.detach(&target, &volume("v")),
                ];
                for result in tried {
                    assert!(matches!(result, Err(MountError::Foreign { .. })), "{result:?}");
                }
                assert!(inner.join("theirs").is_file());
                lose_mount(&inner);
            }
            mounts.detach(&target, &volume("v")).unwrap();
            // A tmpfs that only looks like one of ours.
            mount_tmpfs(target.as_path(), "size=1m");
            for part in ["store", "var"] {
                fs::create_dir(target.as_path().join(part)).unwrap();
            }
            assert_eq!(attached(world, &mounts, &target), Attached::Foreign);
            let e = mounts.detach(&target, &volume("v")).unwrap_err();
            assert!(matches!(e, MountError::Foreign { .. }), "{e}");
            assert_eq!(world.mounts_below(&world.pods), 1);
        });
    }
}
