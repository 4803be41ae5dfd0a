//! NodeGetVolumeStats.

use nix_csi::grpc::client::Code;
use nix_csi::grpc::proto::csi::VolumeUsage;
use nix_csi::grpc::proto::csi::volume_usage::Unit;

use crate::lab;

#[tokio::test(flavor = "multi_thread")]
async fn statistics_are_the_closures_or_the_writable_layers() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let sizes = ["--extra-experimental-features", "nix-command", "path-info", "-S", &root];
    let size: i64 = lab.ok("nix", &sizes).split_whitespace().last().unwrap().parse().unwrap();
    let node = lab.node(&[]).await;
    let reader = lab.volume("ro", &[("storePath", &root)]);
    assert_eq!(node.stats(&reader).await.unwrap_err().code(), Code::NotFound);
    node.publish(&reader).await.unwrap();
    let usage = node.stats(&reader).await.unwrap();
    assert_eq!(usage.len(), 1);
    assert_eq!(usage[0].unit(), Unit::Bytes);
    assert_eq!((usage[0].total, usage[0].used, usage[0].available), (size, size, 0));

    let writer = lab.volume("rw", &[("storePath", &root)]).writable();
    node.publish(&writer).await.unwrap();
    let usage = node.stats(&writer).await.unwrap();
    assert_eq!(
        usage.iter().map(VolumeUsage::unit).collect::<Vec<_>>(),
        [Unit::Bytes, Unit::Inodes]
    );
    assert!(usage.iter().all(|u| u.total > 0 && u.available > 0 && u.used < u.total), "{usage:?}");

    let mut elsewhere = reader.clone();
    elsewhere.target = writer.target.clone();
    assert_eq!(node.stats(&elsewhere).await.unwrap_err().code(), Code::NotFound);
    for volume in [&reader, &writer] {
        lab.ok("umount", &[volume.target.to_str().unwrap()]);
        assert_eq!(node.stats(volume).await.unwrap_err().code(), Code::NotFound);
        node.unpublish(volume).await.unwrap();
        assert_eq!(node.stats(volume).await.unwrap_err().code(), Code::NotFound);
    }
}
