//! Targets that can't be mounted on.

use std::fs;
use std::os::unix::fs::symlink;

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Lab, Node, Volume};

/// Publishes at `target`, which must be refused and leave the directory as it was.
async fn refused(lab: &Lab, node: &Node, volume: &Volume) -> (Code, String) {
    let before = lab.ok("find", &[lab.path("targets").to_str().unwrap(), "-ls"]);
    let status = node.publish(volume).await.expect_err("it must be refused");
    let after = lab.ok("find", &[lab.path("targets").to_str().unwrap(), "-ls"]);
    assert_eq!(before, after, "{status}");
    let status_of_node = node.status().await;
    assert_eq!(status_of_node.volumes, []);
    let empty: &[&str] = &[];
    assert_eq!(lab.names(lab.path("run/volumes").to_str().unwrap()), empty, "records");
    assert_eq!(lab.names("/nix/var/nix-csi/volumes"), empty, "writable layers");
    assert_eq!(lab.mounts_below(&lab.path("targets")), empty, "mounts");
    let said = status.message().replace(lab.dir.path().to_str().unwrap(), "LAB");
    (status.code(), said)
}

#[tokio::test]
async fn a_bad_target_is_named_and_left_alone() {
    let lab = lab!();
    let targets = lab.path("targets");
    let node = lab.node(&["--target-root", targets.to_str().unwrap()]).await;
    let path = lab.closure(&["--arg", "paths", "2"]);
    fs::create_dir(targets.join("real")).unwrap();
    symlink("real", targets.join("link")).unwrap();
    symlink("real", targets.join("last")).unwrap();
    symlink("/", targets.join("root")).unwrap();
    fs::write(targets.join("file"), "text").unwrap();
    let outside = "LAB/run/x is outside the allowed directories (LAB/targets): start nix-csi with \
                   --target-root for it";
    let symlink = "is a symlink or leaves the allowed directory; symlinks are followed only in a \
                   --target-root itself";
    let cases = [
        ("../run/x", Code::InvalidArgument, format!("target_path {outside}")),
        (
            "link/x",
            Code::InvalidArgument,
            format!("target_path LAB/targets/link/x: LAB/targets/link {symlink}"),
        ),
        (
            "root/etc/x",
            Code::InvalidArgument,
            format!("target_path LAB/targets/root/etc/x: LAB/targets/root {symlink}"),
        ),
        (
            "last",
            Code::InvalidArgument,
            format!("target_path LAB/targets/last: LAB/targets/last {symlink}"),
        ),
        (
            "none/x",
            Code::FailedPrecondition,
            "target_path LAB/targets/none/x: its parent directory does not exist; the caller \
             creates it"
                .to_owned(),
        ),
        (
            "file",
            Code::InvalidArgument,
            "target_path LAB/targets/file: LAB/targets/file is not a directory".to_owned(),
        ),
        (
            "file/x",
            Code::InvalidArgument,
            "target_path LAB/targets/file/x: LAB/targets/file is not a directory".to_owned(),
        ),
    ];
    for (target, code, text) in cases {
        for writable in [false, true] {
            let mut volume = lab.volume("bad", &[("storePath", &path)]);
            volume.target = match target.strip_prefix("../") {
                Some(above) => lab.path(above),
                None => targets.join(target),
            };
            volume.readonly = !writable;
            let expected = (code, format!("mount failed: {text}"));
            assert_eq!(refused(&lab, &node, &volume).await, expected, "{target}");
        }
    }
    // And with a good one it works.
    let volume = lab.volume("good", &[("storePath", &path)]);
    node.publish(&volume).await.unwrap();
    node.unpublish(&volume).await.unwrap();
}
