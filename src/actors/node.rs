//! The node's actors, started in their order.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use tokio::sync::mpsc;

use super::builds::{Builds, BuildsConfig, BuildsHandle};
use super::child::{ChildProcess, Stop};
use super::core::{ActorGone, Backoff, End, ask, supervise};
use super::views::{Views, ViewsConfig, ViewsHandle};
use super::volume::{Directory, VolumeError, Volumes, VolumesConfig};
use crate::health::{Condition, Health};
use crate::mount::Mounts;
use crate::nix::{DaemonSpec, Nix};

/// Core actors are few and hold no request of their own: back soon, and give up when it does not
/// help, because a node that only restarts serves nobody.
const CORE: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(30), Duration::from_secs(120), 8);

/// Parts of the health that these actors set.
pub const DAEMON: &str = "nix-daemon";
pub const VOLUMES: &str = "volumes";

pub struct NodeActorsConfig {
    /// `None`: a daemon is lent.
    pub daemon: Option<DaemonSpec>,
    pub records: PathBuf,
    /// Directory of our GC roots, below the store's `gcroots`.
    pub roots: PathBuf,
    pub boot_id: Arc<str>,
    pub build_slots: usize,
    pub keep_idle: Duration,
    pub verify_interval: Duration,
}

/// What other rooms need of the actors.
#[derive(Clone)]
pub struct NodeActors {
    pub directory: Directory,
    pub builds: BuildsHandle,
    pub views: ViewsHandle,
    daemon: Option<Addr<ChildProcess>>,
}

impl NodeActors {
    /// Starts all; `given_up` hears the first core actor that gave up, which ends the process.
    pub fn start(
        config: NodeActorsConfig,
        nix: Arc<dyn Nix>,
        mounts: Arc<dyn Mounts>,
        health: &Health,
        given_up: &mpsc::UnboundedSender<String>,
    ) -> Result<Self, VolumeError> {
        super::metrics::show_all();
        let watch = |part: &'static str| {
            let (given_up, health) = (given_up.clone(), health.clone());
            move |end| {
                if let End::GaveUp { reason } = end {
                    health.set(part, &Condition::Sick(reason.clone()));
                    drop(given_up.send(format!("{part}: {reason}")));
                }
            }
        };
        let daemon = config.daemon.map(|spec| {
            supervise(ChildProcess::new(spec, DAEMON, health.clone()), CORE, watch(DAEMON))
        });
        let slots = config.build_slots;
        let builds = BuildsConfig { roots: config.roots.join("builds"), slots };
        let builds = supervise(Builds::new(nix.clone(), builds), CORE, watch("builds"));
        let views = ViewsConfig {
            roots: config.roots.join("views"),
            keep_idle: config.keep_idle,
            verify_interval: config.verify_interval,
        };
        let views = supervise(Views::new(nix, mounts.clone(), views), CORE, watch("views"));
        let volumes = VolumesConfig { records: config.records, boot_id: config.boot_id };
        let directory =
            Volumes::start(volumes, mounts, builds.clone(), views.clone(), CORE, watch(VOLUMES))?;
        Ok(Self { directory, builds: BuildsHandle(builds), views: ViewsHandle(views), daemon })
    }

    /// A message through each core actor: whether they live and are not stuck.
    pub async fn answer(&self) -> Result<(), ActorGone> {
        tokio::try_join!(self.directory.answer(), self.builds.answer(), self.views.answer())?;
        Ok(())
    }

    /// Ends the daemon. Mounts are left as they are.
    pub async fn stop(self) {
        if let Some(daemon) = self.daemon {
            let _ = ask(&daemon, Stop).await; // gone is as good as stopped
        }
    }
}
