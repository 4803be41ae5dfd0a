//! A node's mounts.

use std::ffi::OsString;
use std::path::Path;

use super::{NodeError, fail};
use crate::config::NodeConfig;
use crate::model::STORE_DIR;
use crate::mount::{self, PresentationChoice, RealMounts};

/// Why the node can do less than it was asked for; empty if it can do all.
pub(super) fn less_than_asked(mounts: &RealMounts) -> String {
    let refusal = mounts.writable_refusal().map(|why| format!("no writable volumes: {why}"));
    let unbounded = mounts.bounded_refusal().map(|why| format!("no volumes with a size: {why}"));
    let reasons = [mounts.fallback_reason().map(str::to_owned), refusal, unbounded];
    reasons.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Where a node has its views and volumes' files.
pub(super) fn mounts_in(state_dir: &Path, presentation: PresentationChoice) -> mount::Config {
    mount::Config {
        store_dir: STORE_DIR.into(),
        views_dir: state_dir.join("views"),
        volumes_dir: state_dir.join("volumes"),
        target_roots: vec!["/".into()],
        presentation,
        search_path: OsString::new(),
    }
}

pub(super) async fn open_mounts(config: &NodeConfig) -> Result<RealMounts, NodeError> {
    let mounts = mount::Config {
        target_roots: config.target_root.clone(),
        search_path: config.process.programs.search_path.clone(),
        ..mounts_in(&config.process.state_dir, config.presentation.into())
    };
    let opened = tokio::task::spawn_blocking(move || RealMounts::open(&mounts)).await;
    let mounts = opened.map_err(|e| fail("can't prepare mounts")(&e))?;
    mounts.map_err(|e| fail("can't prepare mounts")(&e))
}
