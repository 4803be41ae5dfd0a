//! Where a node's mounts are made.

use std::ffi::OsString;
use std::path::Path;

use super::{NodeError, fail};
use crate::config::NodeConfig;
use crate::model::STORE_DIR;
use crate::mount::{self, PresentationChoice, RealMounts};

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
