//! What a warm publish and its unpublish ask of the kernel, counted by strace: figures that no load of a machine
//! changes, where times would. More calls than these, or one that grows with the closure or with the number of
//! volumes, is a slower mount.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../lab/mod.rs"]
mod lab;
mod strace;

use std::collections::BTreeMap;

use lab::{Lab, Node, Volume};
use strace::{Calls, Strace};

/// Followed together; what the node does beside them, such as a look at the disk, is less than one of each.
const ROUNDS: usize = 20;
/// Before them, so that no thread is started in between.
const FIRST: usize = 5;

/// Of one publish and its unpublish.
const READ_ONLY: &[(&str, usize)] = &[
    ("close", 11),
    ("fstatfs", 3),
    ("mkdirat", 1),
    ("mount_setattr", 1),
    ("move_mount", 1),
    ("fstat", 3),
    ("open_tree", 1),
    ("openat", 3),
    ("openat2", 7),
    ("rename", 1),
    ("statx", 5),
    ("umount2", 1),
    ("unlink", 1),
    ("unlinkat", 1),
    ("write", 4),
];
const WRITABLE: &[(&str, usize)] = &[
    ("chmod", 3),
    ("close", 21),
    ("fsconfig", 9),
    ("fsmount", 1),
    ("fsopen", 1),
    ("fstatfs", 2),
    ("getdents64", 12),
    ("mkdir", 3),
    ("mkdirat", 1),
    ("move_mount", 1),
    ("fstat", 6),
    ("open", 1),
    ("openat", 11),
    ("openat2", 7),
    ("read", 10),
    ("rename", 2),
    ("statx", 10),
    ("umount2", 1),
    ("unlink", 1),
    ("unlinkat", 9),
    ("write", 5),
];

fn expected(calls: &[(&str, usize)]) -> BTreeMap<String, usize> {
    calls.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

async fn rounds(node: &Node, rounds: usize, volume: &impl Fn() -> Volume) {
    for _ in 0..rounds {
        let volume = volume();
        node.publish(&volume).await.unwrap();
        node.unpublish(&volume).await.unwrap();
    }
}

async fn followed(lab: &Lab, node: &Node, volume: impl Fn() -> Volume) -> Result<Calls, String> {
    rounds(node, FIRST, &volume).await;
    let strace = Strace::of(lab, node)?;
    rounds(node, ROUNDS, &volume).await;
    Ok(strace.end())
}

#[tokio::test]
async fn a_warm_publish_is_these_calls_whatever_the_closure_and_however_many_volumes() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let small = lab.closure(&["--arg", "paths", "5"]);
    let large = lab.closure(&["--arg", "paths", "60", "--argstr", "seed", "large"]);
    let volume = |path: &str| lab.volume("warm", &[("storePath", path)]);
    let shapes = [("read-only", READ_ONLY, true), ("writable", WRITABLE, false)];
    let mut others = Vec::new();
    for beside in [0, 200] {
        for n in others.len()..beside {
            let other = lab.volume(&format!("other-{n}"), &[("storePath", &small)]);
            node.publish(&other).await.unwrap();
            others.push(other);
        }
        for (shape, calls, readonly) in shapes {
            for path in [&small, &large] {
                let seen =
                    or_skip!(followed(&lab, &node, || Volume { readonly, ..volume(path) }).await);
                let what = format!("{shape}, {path}, beside {beside} volumes");
                assert_eq!(seen.processes, Vec::<String>::new(), "{what}");
                assert_eq!(seen.of_each(ROUNDS), expected(calls), "{what}");
            }
        }
    }
}
