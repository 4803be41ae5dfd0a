//! The sshd of a cache or of a node that builds for one.

use std::net::SocketAddr;

use super::nix as settings;
use super::{NodeError, fail};
use crate::actors::reconciler::{Item, Kind};
use crate::config::{NodeConfig, ProcessSettings, SshdSettings};
use crate::model::Announcement;
use crate::nix::sshd::Sshd;
use crate::nix::{ChildSpec, Config, RealNix};

/// What sshd is started with, and the keys that it reads.
pub(super) struct Prepared {
    pub(super) child: ChildSpec,
    pub(super) keys: Item,
}

/// Makes what sshd needs, and lets it check that.
pub(super) async fn prepare(
    process: &ProcessSettings,
    settings: &SshdSettings,
    listen: SocketAddr,
    nix: &Config,
    announcement: Option<Announcement>,
) -> Result<Prepared, NodeError> {
    let sshd = Sshd {
        program: settings.sshd.clone(),
        listen,
        state: process.state_dir.join("ssh"),
        host_key: settings.ssh_host_key.clone(),
        pid_file: process.run_dir.join("sshd.pid"),
        announcement,
    };
    let child = sshd.spec(nix);
    let (source, target) = (settings.authorized_keys.clone(), sshd.authorized_keys());
    let keys = Item { kind: Kind::AuthorizedKeys, source, target };
    let nix = nix.clone();
    let prepared = tokio::task::spawn_blocking(move || sshd.prepare(&nix)).await;
    prepared.map_err(|e| fail("sshd")(&e))?.map_err(|e| fail("sshd")(&e))?;
    Ok(Prepared { child, keys })
}

/// The same of a node at which a cache builds: it says what it can do, and what it has built is signed.
pub(super) async fn prepare_builder(
    config: &NodeConfig,
    listen: SocketAddr,
    nix: &RealNix,
) -> Result<Prepared, NodeError> {
    let said = nix.announcement().await.map_err(|e| fail("what it can build")(&e))?;
    tracing::info!(%said, "builds for others");
    if let Some(key) = settings::signing_key(config).filter(settings::is_usable) {
        match nix.sign_own(&key.target).await {
            Ok(0) => {}
            Ok(signed) => tracing::info!(signed, "paths were built here before there was a key"),
            // Mounts do without.
            Err(error) => tracing::error!(%error, "what was built here before is not signed"),
        }
    }
    prepare(&config.process, &config.sshd, listen, nix.config(), Some(said)).await
}
