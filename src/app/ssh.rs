//! The sshd of a cache or of a node that builds for one.

use std::net::SocketAddr;

use super::{NodeError, fail};
use crate::actors::reconciler::{Item, Kind};
use crate::config::{ProcessSettings, SshdSettings};
use crate::model::Announcement;
use crate::nix::sshd::Sshd;
use crate::nix::{ChildSpec, Config};

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
