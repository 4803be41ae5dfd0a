//! Requests that are refused before anything is looked at.

use nix_csi::grpc::client::Code;
use nix_csi::grpc::proto::csi::NodePublishVolumeRequest;
use nix_csi::grpc::proto::csi::volume_capability::access_mode::Mode;
use nix_csi::grpc::proto::csi::volume_capability::{
    AccessMode, AccessType, BlockVolume, MountVolume,
};
use nix_csi::model::System;

use crate::lab;
use crate::refusal::refused;

const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello";

type Change = fn(&mut NodePublishVolumeRequest);

fn attributes(call: &mut NodePublishVolumeRequest, pairs: &[(&str, &str)]) {
    call.volume_context = lab::attrs(pairs);
}

fn mode(call: &mut NodePublishVolumeRequest, mode: i32) {
    call.volume_capability.as_mut().unwrap().access_mode = Some(AccessMode { mode });
}

fn access(call: &mut NodePublishVolumeRequest, access: Option<AccessType>) {
    call.volume_capability.as_mut().unwrap().access_type = access;
}

fn mount(call: &mut NodePublishVolumeRequest, change: fn(&mut MountVolume)) {
    let mut mount = MountVolume::default();
    change(&mut mount);
    access(call, Some(AccessType::Mount(mount)));
}

/// `SYSTEM` stands for this machine's.
const CASES: &[(Change, &str)] = &[
    (
        |c| attributes(c, &[]),
        "volumeAttributes name no source for SYSTEM: give exactly one of storePath, flakeRef, \
         nixExpr or SYSTEM (keys seen: none)",
    ),
    (
        |c| attributes(c, &[("csi.storage.k8s.io/pod.name", "p"), ("riscv64-linux", PATH)]),
        "volumeAttributes name no source for SYSTEM: give exactly one of storePath, flakeRef, \
         nixExpr or SYSTEM (keys seen: riscv64-linux)",
    ),
    (
        |c| attributes(c, &[("storePath", PATH), ("nixExpr", "1")]),
        "volumeAttributes name 2 sources for SYSTEM (storePath, nixExpr): give exactly one of \
         storePath, flakeRef, nixExpr or SYSTEM",
    ),
    (
        |c| attributes(c, &[("storepath", PATH)]),
        "volumeAttributes has an unknown key \"storepath\": known are storePath, flakeRef, \
         nixExpr, expression, hostUsers, size and systems such as x86_64-linux",
    ),
    (
        |c| attributes(c, &[("flakeRef", "  ")]),
        "volumeAttributes.flakeRef is empty: give it a value or leave the key out",
    ),
    (
        |c| attributes(c, &[("flakeRef", "a\x1b[31mb")]),
        "volumeAttributes.flakeRef has a control character in it",
    ),
    (
        |c| attributes(c, &[("storePath", "/etc/passwd")]),
        "volumeAttributes.storePath: \"/etc/passwd\" is not a store path: it does not start with \
         /nix/store/",
    ),
    (
        |c| attributes(c, &[("storePath", "/nix/store/hello")]),
        "volumeAttributes.storePath: \"hello\" is not a store path: after /nix/store/ come 32 \
         characters of Nix's base 32, a dash and a name of letters, digits and +-._?=",
    ),
    (
        |c| attributes(c, &[("storePath", &format!("{PATH}/bin/hello"))]),
        "volumeAttributes.storePath: \
         \"/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello/bin/hello\" names something below a \
         store path: use /nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello and reach the rest \
         through the mount",
    ),
    (
        |c| attributes(c, &[("nixExpr", &"x".repeat(64 * 1024 + 1))]),
        "volumeAttributes.nixExpr has 65537 bytes, more than the 65536 allowed: put a long \
         expression into a flake",
    ),
    (
        |c| attributes(c, &[("flakeRef", &"x".repeat(4097))]),
        "volumeAttributes.flakeRef has 4097 bytes, more than the 4096 allowed: give a shorter one",
    ),
    (
        |c| attributes(c, &[("storePath", PATH), ("a/b", &"x".repeat(128 * 1024))]),
        "volumeAttributes have 131133 bytes, more than the 131072 allowed",
    ),
    (
        |c| attributes(c, &[("hostUsers", "false")]),
        "volumeAttributes name no source for SYSTEM: give exactly one of storePath, flakeRef, \
         nixExpr or SYSTEM (keys seen: hostUsers)",
    ),
    (
        |c| attributes(c, &[("storePath", PATH), ("hostUsers", "no")]),
        "volumeAttributes.hostUsers \"no\": give it the value of the pod's hostUsers, \"true\" or \
         \"false\" in quotes, or leave it out",
    ),
    (
        |c| attributes(c, &[("storePath", PATH), ("hostUsers", &"x".repeat(100_000))]),
        "volumeAttributes.hostUsers \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\": give it the value of the \
         pod's hostUsers, \"true\" or \"false\" in quotes, or leave it out",
    ),
    (
        |c| {
            attributes(c, &[("storePath", PATH), ("hostUsers", "false")]);
            c.readonly = false;
        },
        "volumeAttributes.hostUsers is false, and a writable volume can't be mapped into a user \
         namespace: write readOnly: true beside driver in the pod's volumes[].csi (readOnly in \
         volumeMounts is not enough), or hostUsers: true into the pod's spec",
    ),
    (
        |c| {
            attributes(c, &[("storePath", PATH), ("size", "64MB")]);
            c.readonly = false;
        },
        "volumeAttributes.size \"64MB\" is no quantity: give it bytes, such as 500Mi, 2Gi or 1G, or \
         leave it out for no limit",
    ),
    (
        |c| {
            attributes(c, &[("storePath", PATH), ("size", "1Mi")]);
            c.readonly = false;
        },
        "volumeAttributes.size \"1Mi\" is too small for a file system: give it 16Mi or more",
    ),
    (
        |c| attributes(c, &[("storePath", PATH), ("size", "64Mi")]),
        "volumeAttributes.size limits what a pod writes, and this volume is read-only: leave size out, \
         or readOnly: true in the pod's volumes[].csi",
    ),
    (
        |c| mode(c, 99),
        "volume_capability.access_mode 99 is not supported: use SINGLE_NODE_WRITER, \
         SINGLE_NODE_READER_ONLY or MULTI_NODE_READER_ONLY",
    ),
    (
        |c| mode(c, Mode::MultiNodeMultiWriter.into()),
        "volume_capability.access_mode MULTI_NODE_MULTI_WRITER is not supported: use \
         SINGLE_NODE_WRITER, SINGLE_NODE_READER_ONLY or MULTI_NODE_READER_ONLY",
    ),
    (
        |c| c.volume_capability.as_mut().unwrap().access_mode = None,
        "volume_capability.access_mode UNKNOWN is not supported: use SINGLE_NODE_WRITER, \
         SINGLE_NODE_READER_ONLY or MULTI_NODE_READER_ONLY",
    ),
    (|c| c.volume_capability = None, "volume_capability is missing"),
    (|c| access(c, None), "volume_capability.access_type is missing"),
    (
        |c| access(c, Some(AccessType::Block(BlockVolume {}))),
        "volume_capability.block: a store is a file system: use mount access",
    ),
    (
        |c| mount(c, |m| m.fs_type = "ext4".into()),
        "fsType \"ext4\": leave it out, a store has no file system to choose",
    ),
    (
        |c| mount(c, |m| m.fs_type = "x\n".repeat(1_000_000)),
        "fsType \"x\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\nx\\n\": leave it out, a \
         store has no file system to choose",
    ),
    (
        |c| mount(c, |m| m.mount_flags = vec!["noatime".to_owned()]),
        "mount options (volume_capability.mount.mount_flags) are not supported: leave them out",
    ),
    (
        |c| c.secrets = lab::attrs(&[("token", "hunter2")]),
        "secrets (nodePublishSecretRef) have the key \"token\": give the pod a Secret with access-tokens, netrc or both, and nothing else",
    ),
    (|c| c.volume_id.clear(), "volume_id is missing"),
    (
        |c| c.volume_id = "../x".into(),
        "volume_id \"../x\" has '.' in it: allowed are letters, digits, '-', '_', ':' and '.', \
         and no leading '.'",
    ),
    (
        |c| c.volume_id = "a\0b".into(),
        "volume_id \"a\\0b\" has '\\0' in it: allowed are letters, digits, '-', '_', ':' and '.', \
         and no leading '.'",
    ),
    (
        |c| c.volume_id = "x".repeat(129),
        "volume_id has 129 bytes, more than the 128 that CSI allows",
    ),
    (|c| c.target_path.clear(), "target_path is missing"),
    (|c| c.target_path = "a/b".into(), "target_path \"a/b\" is not absolute"),
    (
        |c| c.target_path = "/a/../b".into(),
        "target_path \"/a/../b\" has '.', '..', an empty component or a NUL in it",
    ),
    (
        |c| c.target_path = "/a//b".into(),
        "target_path \"/a//b\" has '.', '..', an empty component or a NUL in it",
    ),
    (
        |c| c.target_path = "/a\0b".into(),
        "target_path \"/a\\0b\" has '.', '..', an empty component or a NUL in it",
    ),
    (
        |c| c.target_path = "/x".repeat(2048),
        "target_path has 4096 bytes, more than the 4095 that the kernel allows",
    ),
];

#[tokio::test]
async fn a_bad_request_names_its_field() {
    let lab = lab!();
    let node = lab.node(&[]).await;
    let system = System::current().to_string();
    for (change, expected) in CASES {
        let volume = lab.volume("bad", &[("storePath", PATH)]);
        let mut call = volume.request();
        change(&mut call);
        let expected = expected.replace("SYSTEM", &system);
        assert_eq!(refused(&lab, &node, &volume, call).await, (Code::InvalidArgument, expected));
    }
    assert!(!node.log().contains("hunter2"), "a secret in the log");
}
