//! One volume from each source.

use crate::lab;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_path_is_mounted_and_gone_again() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let node = lab.node(&[]).await;
    let volume = lab.volume("one", &[("storePath", &root)]);
    node.publish(&volume).await.unwrap();
    assert_eq!(lab.mounts_below(&lab.path("targets")).len(), 1);
    node.unpublish(&volume).await.unwrap();
    assert!(lab.mounts_below(&lab.path("targets")).is_empty());
}
