//! From a node's settings to its actors.

use std::fs;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::nix as settings;
use super::{NodeError, fail, gc, ssh};
use crate::actors::builds::MemoryConfig;
use crate::actors::keeper::KeeperConfig;
use crate::actors::node::{DAEMON, NodeActors, NodeActorsConfig};
use crate::config::NodeConfig;
use crate::health::{Condition, Health};
use crate::k8s::Api;
use crate::mount::Mounts;
use crate::nix::{RealNix, daemon};

/// What the actors work on.
pub(super) struct Rooms {
    pub(super) nix: RealNix,
    pub(super) mounts: Arc<dyn Mounts>,
    pub(super) cluster: Option<Arc<dyn Api>>,
    /// For a cache that builds here.
    pub(super) sshd: Option<ssh::Prepared>,
}

pub(super) fn start(
    config: &NodeConfig,
    rooms: Rooms,
    health: &Health,
    given_up: &mpsc::UnboundedSender<String>,
) -> Result<NodeActors, NodeError> {
    let daemon = if config.nix_daemon_socket.is_some() {
        health.set(DAEMON, &Condition::Ready); // lent, and seen to answer a moment ago
        None
    } else {
        let pid_file = config.process.run_dir.join("nix-daemon.pid");
        daemon::spec(&settings::daemon_config(config), pid_file)
            .map_err(|e| fail("nix-daemon")(&e))?
    };
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|e| fail("can't read the boot id")(&e))?;
    let settings = &config.builds;
    let used = gc::used(&config.process);
    let uploads = settings::uploads(config, &used);
    if uploads.is_none() {
        settings::release_uploads(config);
    }
    let Rooms { nix, mounts, cluster, sshd } = rooms;
    let (sshd, keys) = sshd.map(|sshd| (sshd.child, sshd.keys)).unzip();
    let actors = NodeActorsConfig {
        daemon,
        sshd,
        synced: settings::mounted(config).into_iter().chain(keys).collect(),
        conf: settings::conf(&config.process, &nix),
        records: config.process.run_dir.join("volumes"),
        roots: settings::roots_dir(config),
        boot_id: boot_id.trim().into(),
        evaluation_slots: settings.eval_slots.into(),
        build_slots: settings.build_slots.into(),
        evaluation_builds: settings.allow_import_from_derivation,
        memory: MemoryConfig {
            refresh: settings.refresh_after,
            retry_min: settings.failure_backoff,
            retry_max: settings.failure_backoff_max,
        },
        max_waiting: settings.max_waiting as usize,
        cancel_grace: settings.cancel_grace,
        abandon_after: settings.abandon_after,
        keep_idle: config.keep_idle,
        verify_interval: config.verify_interval,
        cluster: cluster.clone(),
        sweep_after: config.cluster.sweep_after,
        uploads,
        keeper: KeeperConfig {
            sources: config.kept.keep.iter().flat_map(|list| list.sources.clone()).collect(),
            file: config.kept.keep_file.clone(),
            record: config.process.state_dir.join("kept.json"),
            refresh: config.kept.keep_refresh,
        },
        policy: super::cluster::policy(config, cluster.as_ref(), health),
        grants: config.process.state_dir.join("grants"),
        gc: gc::node(config)?,
        used,
    };
    NodeActors::start(actors, Arc::new(nix), mounts, health, given_up)
        .map_err(|e| fail("can't start")(&e))
}
