//! Calls for many volumes at once.

use nix_csi::grpc::client::{Code, Status};

use super::{Lab, Node, Volume};

/// `count` volumes of one source.
pub fn volumes(lab: &Lab, name: &str, attributes: &[(&str, &str)], count: usize) -> Vec<Volume> {
    (0..count).map(|n| lab.volume(&format!("{name}-{n}"), attributes)).collect()
}

pub async fn publish_all(node: &Node, volumes: &[Volume]) -> Vec<Result<(), Status>> {
    futures::future::join_all(volumes.iter().map(|v| node.publish(v))).await
}

pub async fn unpublish_all(node: &Node, volumes: &[Volume]) -> Vec<Result<(), Status>> {
    futures::future::join_all(volumes.iter().map(|v| node.unpublish(v))).await
}

pub fn assert_all_ok(results: &[Result<(), Status>]) {
    let failed: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
}

pub fn code(result: Result<(), Status>) -> Code {
    result.map_or_else(|e| e.code(), |()| Code::Ok)
}
