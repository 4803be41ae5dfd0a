//! Writable volumes with a size, as a kubelet asks for them.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use nix_csi::grpc::client::Code;
use nix_csi::grpc::proto::csi::VolumeUsage;
use nix_csi::grpc::proto::csi::volume_usage::Unit;

use crate::lab;
use crate::lab::{Lab, Node, Volume, eventually};
use crate::world::{NO_IDLE, assert_nothing_left, assert_shows, code, in_volume, target_mounts};

const MIB: i64 = 1 << 20;

/// `None`, and a visible skip, on a machine without loop devices.
fn bounded(lab: &Lab, name: &str, root: &str, size: &str) -> Option<Volume> {
    if fs::File::open("/dev/loop-control").is_err() {
        lab::skipped(name, "a volume with a size needs loop devices");
        return None;
    }
    Some(lab.volume(name, &[("storePath", root), ("size", size)]).writable())
}

/// Devices of the volume's image.
fn loops(volume: &Volume) -> usize {
    let file = |entry: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(entry.unwrap().path().join("loop/backing_file")).ok()
    };
    let files = fs::read_dir("/sys/block").unwrap().filter_map(file);
    files.filter(|file| file.contains(&volume.id)).count()
}

/// Writes to `path` until there is no space, at most 1 GiB.
fn fill(lab: &Lab, path: &Path) -> Option<ErrorKind> {
    lab.inside(|| {
        let mut file = fs::File::create(path).unwrap();
        let block = vec![7; 1 << 20];
        (0..1024).find_map(|_| file.write_all(&block).err()).map(|e| e.kind())
    })
}

async fn usage(node: &Node, volume: &Volume) -> [VolumeUsage; 2] {
    let usage: [_; 2] = node.stats(volume).await.unwrap().try_into().unwrap();
    assert_eq!(usage.each_ref().map(VolumeUsage::unit), [Unit::Bytes, Unit::Inodes]);
    usage
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_fills_its_volume_and_nothing_else() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let Some(full) = bounded(&lab, "full", &root, "64Mi") else {
        return;
    };
    let mut node = lab.node(NO_IDLE).await;
    let other = bounded(&lab, "other", &root, "32Mi").unwrap();
    let free = lab.volume("free", &[("storePath", &root)]).writable();
    for volume in [&full, &other, &free] {
        node.publish(volume).await.unwrap();
        assert_shows(&lab, volume, &root);
    }
    let [bytes, inodes] = usage(&node, &full).await;
    assert!((58 * MIB..=64 * MIB).contains(&bytes.total), "{bytes:?}");
    assert!(bytes.used < MIB && inodes.used < 20, "{bytes:?} {inodes:?}");
    assert!(inodes.total > 5000 && inodes.available + inodes.used == inodes.total, "{inodes:?}");

    let big = full.target.join("big");
    assert_eq!(fill(&lab, &big), Some(ErrorKind::StorageFull));
    let [bytes, _] = usage(&node, &full).await;
    assert!(bytes.used > 55 * MIB && bytes.available < MIB, "{bytes:?}");
    let [bytes, _] = usage(&node, &other).await;
    assert!(bytes.used < MIB && bytes.total <= 32 * MIB, "{bytes:?}");
    lab.inside(|| {
        for dir in [&other.target, &free.target] {
            fs::write(dir.join("more"), vec![1; 4 << 20]).unwrap();
        }
    });
    // The store and the node's own files.
    let added = in_volume(&lab, &other, "echo new > /tmp/new; nix-store --add /tmp/new");
    assert!(added.ends_with("-new"), "{added}");
    lab.closure(&["--argstr", "seed", "meanwhile"]);

    // A node that died finds it as it was.
    node.kill();
    node = lab.node(NO_IDLE).await;
    node.publish(&full).await.unwrap();
    let [bytes, _] = usage(&node, &full).await;
    assert!(bytes.total <= 64 * MIB && bytes.available < MIB, "{bytes:?}");
    assert_eq!((loops(&full), target_mounts(&lab).len()), (1, 3));
    lab.inside(|| fs::remove_file(&big).unwrap());
    let [bytes, _] = usage(&node, &full).await;
    assert!(bytes.used < MIB, "{bytes:?}");
    assert_eq!(fill(&lab, &big), Some(ErrorKind::StorageFull));

    for volume in [&full, &other, &free] {
        node.unpublish(volume).await.unwrap();
        // The kernel lets go of it by itself.
        eventually("the loop device to end", || loops(volume) == 0);
    }
    assert_nothing_left(&lab);
}

/// The same bytes written otherwise are another request, as all attributes are.
#[tokio::test(flavor = "multi_thread")]
async fn another_size_is_another_request() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let Some(volume) = bounded(&lab, "one", &root, "64Mi") else {
        return;
    };
    let node = lab.node(NO_IDLE).await;
    node.publish(&volume).await.unwrap();
    node.publish(&volume).await.unwrap();
    assert_eq!(loops(&volume), 1);
    for size in [Some("128Mi"), Some("65536Ki"), None] {
        let mut other = volume.clone();
        other.attributes.remove("size");
        other.attributes.extend(size.map(|size| ("size".to_owned(), size.to_owned())));
        assert_eq!(code(node.publish(&other).await), Code::AlreadyExists, "{size:?}");
    }
    node.unpublish(&volume).await.unwrap();
    assert_nothing_left(&lab);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_can_keep_no_size_says_why_and_what_to_do() {
    let lab = lab!();
    let root = lab.closure(&[]);
    lab.ok("mount", &["-t", "tmpfs", "none", "/usr/sbin"]);
    let node = lab.node(NO_IDLE).await;
    let reason = "can't run mkfs.ext4: No such file or directory (os error 2) (it is in e2fsprogs)";
    let facts = node.status().await.node.unwrap();
    assert_eq!(facts.presentation_reason, format!("no volumes with a size: {reason}"));
    let volume = lab.volume("one", &[("storePath", &root), ("size", "64Mi")]).writable();
    let refusal = node.publish(&volume).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert_eq!(
        refusal.message(),
        format!(
            "mount failed: volumeAttributes.size can't be kept on this node: {reason}: have the \
             node's operator see to that, or leave size out"
        )
    );
    assert_nothing_left(&lab);
    let mut free = volume.clone();
    free.attributes.remove("size");
    node.publish(&free).await.unwrap();
    assert_shows(&lab, &free, &root);
    node.unpublish(&free).await.unwrap();
    assert_nothing_left(&lab);
}
