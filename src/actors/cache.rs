//! The cache's actors, started in their order: configuration → nix-daemon → sshd → ready.

use std::sync::Arc;

use actix::Addr;
use tokio::sync::mpsc;

use super::child::{ChildProcess, Stop};
use super::core::{ask, supervise, tell};
use super::gc::holders::Holders;
use super::gc::used::Used;
use super::gc::{GcHandle, Meet};
use super::node::{CONFIG, CORE, DAEMON, GcActorConfig, SSHD, end_sshd, give_up, start_gc};
use super::reconciler::{ConfigReconciler, Item, NixConf, ReconcilerConfig};
use super::registry::{BuilderProbe, BuilderRegistry, Probe, RegistryConfig, RegistryHandle};
use crate::health::Health;
use crate::k8s::Builders;
use crate::nix::{ChildSpec, Garbage};

/// Part of a reason, when the builders' actors gave up.
const BUILDERS: &str = "builders";

pub struct CacheActorsConfig {
    pub daemon: ChildSpec,
    pub sshd: ChildSpec,
    /// What is kept in step with what is mounted.
    pub items: Vec<Item>,
    pub conf: Option<NixConf>,
    /// `None`: there is no Kubernetes.
    pub builders: Option<(RegistryConfig, Arc<dyn Builders>, Probe)>,
    pub gc: GcActorConfig,
    pub used: Used,
    pub store: Arc<dyn Garbage>,
}

/// Held, because an actor without an address is not restarted.
pub struct CacheActors {
    daemon: Addr<ChildProcess>,
    sshd: Addr<ChildProcess>,
    _reconciler: Addr<ConfigReconciler>,
    _builders: Option<Addr<BuilderProbe>>,
    pub gc: GcHandle,
}

impl CacheActors {
    /// Starts all; `given_up` hears the first that gave up, which ends the process.
    pub fn start(
        config: CacheActorsConfig,
        health: &Health,
        given_up: &mpsc::UnboundedSender<String>,
    ) -> Self {
        super::metrics::show_all();
        let watch = |part| give_up(part, given_up, health);
        let child = |spec, part, after| {
            let child = ChildProcess::new(spec, part, after, health.clone());
            supervise(child, CORE, watch(part))
        };
        let daemon = child(config.daemon, DAEMON, &[]);
        let reconciler = ReconcilerConfig {
            items: config.items,
            conf: config.conf,
            daemon: Some(daemon.clone()),
            part: CONFIG,
            health: health.clone(),
        };
        let gc = start_gc(config.gc, config.store, (config.used, None), health);
        tell(&gc, Meet(Holders::default()));
        let builders = config.builders.map(|(config, source, probe)| {
            let registry = BuilderRegistry::new(config, source);
            let registry = RegistryHandle::start(registry, CORE, watch(BUILDERS));
            BuilderProbe::start(registry, probe, CORE, watch(BUILDERS))
        });
        Self {
            _builders: builders,
            gc: GcHandle(gc),
            daemon,
            sshd: child(config.sshd, SSHD, &[DAEMON, CONFIG]),
            _reconciler: supervise(ConfigReconciler::new(reconciler), CORE, watch(CONFIG)),
        }
    }

    /// Ends sshd with its sessions, then the daemon. Gone is as good as stopped.
    pub async fn stop(self) {
        end_sshd(&self.sshd).await;
        let _ = ask(&self.daemon, Stop).await;
    }
}
