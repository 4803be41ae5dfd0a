//! The node's actors, started in their order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::mpsc;

use super::builds::{Builds, BuildsConfig, BuildsHandle, Listeners, Memory, MemoryConfig};
use super::child::{ChildProcess, Stop};
use super::core::{ActorGone, Backoff, End, Shares, ask, supervise, tell};
use super::events::EventRecorder;
use super::gc::holders::Holders;
use super::gc::used::Used;
use super::gc::{GcConfig, GcHandle, GcScheduler, Meet, Rules};
use super::keeper::{Keeper, KeeperConfig, KeeperHandle};
use super::pods::{PodLookup, PodTable, Pods, PodsConfig};
use super::policy::{self, Access, Policies, PolicyConfig, PolicyHandle};
use super::reconciler::{ConfigReconciler, Item, NixConf, ReconcilerConfig};
use super::registrar::{KubeletRegistrar, RegistrarConfig, RegistrarHandle};
use super::resolve::Resolver;
use super::uploads::{CacheUploader, UploadsConfig, UploadsHandle};
use super::views::{Views, ViewsConfig, ViewsHandle};
use super::volume::{Directory, VolumeError, Volumes, VolumesConfig};
use crate::health::{Condition, Health};
use crate::k8s::Api;
use crate::mount::Mounts;
use crate::nix::{ChildSpec, Garbage, Nix};

/// Core actors are few and hold no request of their own: back soon, and give up when it does not
/// help, because a node that only restarts serves nobody.
pub(super) const CORE: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(30), Duration::from_secs(120), 8);

/// For what a node can do without, for now: never given up.
const PATIENT: Backoff = Backoff::new(
    Duration::from_secs(1),
    Duration::from_secs(60),
    Duration::from_secs(120),
    u32::MAX,
);

/// Parts of the health that these actors set.
pub const DAEMON: &str = "nix-daemon";
pub const VOLUMES: &str = "volumes";
pub const CONFIG: &str = "configuration";
pub const SSHD: &str = "sshd";
pub const GC: &str = "garbage collection";

pub struct NodeActorsConfig {
    /// `None`: a daemon is lent.
    pub daemon: Option<ChildSpec>,
    /// For a cache that builds here.
    pub sshd: Option<ChildSpec>,
    /// What is kept in step with what is mounted.
    pub synced: Vec<Item>,
    pub conf: Option<NixConf>,
    pub records: PathBuf,
    /// Directory of our GC roots, below the store's `gcroots`.
    pub roots: PathBuf,
    pub boot_id: Arc<str>,
    pub evaluation_slots: usize,
    pub build_slots: usize,
    /// An evaluation may build, and then needs a build slot as well.
    pub evaluation_builds: bool,
    pub memory: MemoryConfig,
    /// How long a realisation goes on that no volume waits for.
    pub cancel_grace: Duration,
    /// Volumes of one namespace that wait for their closures.
    pub max_waiting: usize,
    /// How long a volume is resolved that nobody asks for any more.
    pub abandon_after: Duration,
    pub keep_idle: Duration,
    pub verify_interval: Duration,
    /// `None`: there is no Kubernetes, or nobody may ask it.
    pub cluster: Option<Arc<dyn Api>>,
    /// How long a pod must be gone before its volumes are.
    pub sweep_after: Duration,
    /// `None`: there is no cache to upload to.
    pub uploads: Option<UploadsConfig>,
    pub keeper: KeeperConfig,
    /// `None`: pods may ask for everything.
    pub policy: Option<PolicyConfig>,
    /// Where what namespaces have built is noted.
    pub grants: PathBuf,
    pub gc: GcActorConfig,
    pub used: Used,
}

/// What a node's and a cache's collector have in common.
#[derive(Debug, Clone, Copy)]
pub struct GcActorConfig {
    pub rules: Rules,
    pub interval: Duration,
    pub look: Duration,
    /// Parts that must be ready before the first collection.
    pub after: &'static [&'static str],
}

pub(super) fn start_gc(
    config: GcActorConfig,
    store: Arc<dyn Garbage>,
    (used, roots): (Used, Option<PathBuf>),
    health: &Health,
) -> Addr<GcScheduler> {
    health.set(GC, &Condition::Ready);
    let GcActorConfig { rules, interval, look, after } = config;
    let health = health.clone();
    let config = GcConfig { store, used, rules, roots, interval, look, part: GC, health, after };
    // Without it mounts go on; the supervisor says so.
    supervise(GcScheduler::new(config), PATIENT, |_| {})
}

/// Offers the driver to the kubelet. Its giving up costs the registration, not what is mounted.
pub fn start_registrar(config: RegistrarConfig) -> RegistrarHandle {
    let (part, health) = (config.part, config.health.clone());
    RegistrarHandle(supervise(KubeletRegistrar::new(config), CORE, move |end| {
        if let End::GaveUp { reason } = end {
            health.set(part, &Condition::Sick(reason));
        }
    }))
}

/// Its sessions end at once; one that is between two lives can wait for its next one, and is not waited
/// for.
pub(super) async fn end_sshd(sshd: &Addr<ChildProcess>) {
    const LONGEST: Duration = Duration::from_secs(6);
    drop(tokio::time::timeout(LONGEST, ask(sshd, Stop)).await); // gone is as good as stopped
}

/// What the end of a core actor comes to.
pub(super) fn give_up(
    part: &'static str,
    given_up: &mpsc::UnboundedSender<String>,
    health: &Health,
) -> impl FnOnce(End) + use<> {
    let (given_up, health) = (given_up.clone(), health.clone());
    move |end| {
        if let End::GaveUp { reason } = end {
            health.set(part, &Condition::Sick(reason.clone()));
            drop(given_up.send(format!("{part}: {reason}")));
        }
    }
}

/// What other rooms need of the actors.
#[derive(Clone)]
pub struct NodeActors {
    pub directory: Directory,
    pub builds: BuildsHandle,
    pub views: ViewsHandle,
    /// The node's pods, if somebody watches them.
    pub pods: Option<PodLookup>,
    pub uploads: Option<UploadsHandle>,
    pub keeper: KeeperHandle,
    pub policy: PolicyHandle,
    pub gc: GcHandle,
    /// Held, because an actor without an address is not restarted.
    _watch: Option<Addr<Pods>>,
    _policies: Option<Addr<Policies>>,
    _reconciler: Addr<ConfigReconciler>,
    sshd: Option<Addr<ChildProcess>>,
    daemon: Option<Addr<ChildProcess>>,
}

impl NodeActors {
    /// Starts all; `given_up` hears the first core actor that gave up, which ends the process.
    pub fn start<N: Nix + Garbage>(
        config: NodeActorsConfig,
        nix: Arc<N>,
        mounts: Arc<dyn Mounts>,
        health: &Health,
        given_up: &mpsc::UnboundedSender<String>,
    ) -> Result<Self, VolumeError> {
        super::metrics::show_all();
        let watch = |part: &'static str| give_up(part, given_up, health);
        let daemon = config.daemon.map(|spec| {
            supervise(ChildProcess::new(spec, DAEMON, &[], health.clone()), CORE, watch(DAEMON))
        });
        let synced = ReconcilerConfig {
            items: config.synced,
            conf: config.conf,
            daemon: daemon.clone(),
            part: CONFIG,
            health: health.clone(),
        };
        let reconciler = supervise(ConfigReconciler::new(synced), CORE, watch(CONFIG));
        let sshd = config.sshd.map(|spec| {
            let child = ChildProcess::new(spec, SSHD, &[DAEMON, CONFIG], health.clone()).optional();
            supervise(child, PATIENT, |_| {})
        });
        let gc = start_gc(
            config.gc,
            nix.clone(),
            (config.used.clone(), Some(config.roots.clone())),
            health,
        );
        let nix: Arc<dyn Nix> = nix;
        let uploads = config.uploads.map(|config| {
            let uploader = CacheUploader::new(nix.clone(), config);
            // Its end costs uploads and nothing else; the supervisor says so.
            supervise(uploader, PATIENT, |_| {})
        });
        let (policies, policy) = policy::start(config.policy, PATIENT);
        let builds = BuildsConfig {
            roots: config.roots.join("builds"),
            evaluation_slots: config.evaluation_slots,
            build_slots: config.build_slots,
            evaluation_builds: config.evaluation_builds,
            cancel_grace: config.cancel_grace,
            policy: policy.clone(),
        };
        let memory = Arc::new(Memory::new(config.memory));
        let used = config.used;
        let to = Listeners { uploads: uploads.clone(), gc: gc.clone(), used: used.clone() };
        let builds = Builds::new(nix.clone(), memory.clone(), to, builds);
        let builds = supervise(builds, CORE, watch("builds"));
        let builds = BuildsHandle { builds, memory, nix: nix.clone() };
        let views = ViewsConfig {
            roots: config.roots.join("views"),
            keep_idle: config.keep_idle,
            verify_interval: config.verify_interval,
            used,
        };
        let views = supervise(Views::new(nix.clone(), mounts.clone(), views), CORE, watch("views"));
        let events = config.cluster.clone().map(|api| {
            let recorder = EventRecorder::new(api, builds.clone());
            // Its end costs Events and nothing else; the supervisor says so.
            supervise(recorder, CORE, |_| {})
        });
        let volumes = VolumesConfig {
            records: config.records,
            boot_id: config.boot_id,
            abandon_after: config.abandon_after,
            access: Access::new(policy.clone(), nix, config.grants),
        };
        let waiting = Shares::new("volumes", "--max-waiting", config.max_waiting);
        let resolver = Resolver { builds: builds.clone(), views: views.clone(), waiting };
        let (theirs, end) = (resolver.clone(), watch(VOLUMES));
        let directory = Volumes::start(volumes, mounts, theirs, events, CORE, end)?;
        // Its end costs warmth and nothing else; the supervisor says so.
        let keeper = supervise(Keeper::new(resolver.clone(), config.keeper), PATIENT, |_| {});
        let holders = Holders {
            views: Some(views.clone()),
            builds: Some(builds.builds.clone()),
            uploads: uploads.clone(),
            keeper: Some(keeper.clone()),
        };
        tell(&gc, Meet(holders));
        let pods = config.cluster.map(|api| {
            let table = PodTable::default();
            let (directory, sweep_after) = (directory.clone(), config.sweep_after);
            let lookup = PodLookup { table: table.clone(), api: api.clone() };
            let pods = PodsConfig { api, table, directory, sweep_after };
            (lookup, supervise(Pods::new(pods), CORE, watch("pods")))
        });
        let (pods, watch) = pods.unzip();
        let (views, uploads) = (ViewsHandle(views), uploads.map(UploadsHandle));
        Ok(Self {
            directory,
            builds,
            views,
            pods,
            uploads,
            keeper: KeeperHandle { keeper, resolver },
            policy,
            gc: GcHandle(gc),
            _watch: watch,
            _policies: policies,
            _reconciler: reconciler,
            sshd,
            daemon,
        })
    }

    /// A message through each core actor: whether they live and are not stuck.
    pub async fn answer(&self) -> Result<(), ActorGone> {
        tokio::try_join!(self.directory.answer(), self.builds.answer(), self.views.answer())?;
        Ok(())
    }

    /// Lets uploads under way go on for `grace`; the rest stays in the queue.
    pub async fn flush(&self, grace: Duration) {
        if let Some(uploads) = &self.uploads {
            uploads.flush(grace).await;
        }
    }

    /// Ends sshd with its sessions, and the daemon. Mounts are left as they are.
    pub async fn stop(self) {
        if let Some(sshd) = self.sshd {
            end_sshd(&sshd).await;
        }
        if let Some(daemon) = self.daemon {
            let _ = ask(&daemon, Stop).await; // gone is as good as stopped
        }
    }
}
