//! A cache's life.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{NodeError, fail, first_signal, lock, nix};
use crate::actors::cache::{CacheActors, CacheActorsConfig, SSHD};
use crate::actors::node::{CONFIG, DAEMON};
use crate::actors::reconciler::{Item, Kind};
use crate::config::{CacheConfig, SSH_LISTEN};
use crate::health::Health;
use crate::http::{self, HttpState, Probed};
use crate::nix::sshd::Sshd;
use crate::nix::{Config, daemon};
use crate::telemetry::LogFilter;

pub(super) async fn cache(config: CacheConfig, log_filter: LogFilter) -> Result<(), NodeError> {
    let process = &config.process;
    let _locks = [lock("--run-dir", &process.run_dir)?, lock("--state-dir", &process.state_dir)?];
    let health = Health::waiting_for(&[CONFIG, DAEMON, SSHD]);
    let nix_config = nix_config(&config);
    // Nothing here makes roots.
    let (_, capabilities) = nix::open(nix_config.clone(), &PathBuf::new()).await?;
    let sshd = sshd(&config)?;
    let prepared = {
        let (sshd, nix_config) = (sshd.clone(), nix_config.clone());
        tokio::task::spawn_blocking(move || sshd.prepare(&nix_config)).await
    };
    prepared.map_err(|e| fail("sshd")(&e))?.map_err(|e| fail("sshd")(&e))?;
    tracing::info!(nix = %capabilities, ssh = %sshd.listen, "starting");

    let daemon = daemon::spec(&nix_config, process.run_dir.join("nix-daemon.pid"));
    let daemon = daemon.ok_or_else(|| NodeError("nix-daemon has no socket".to_owned()))?;
    let (source, target) = (config.sshd.authorized_keys.clone(), sshd.authorized_keys.clone());
    let items = vec![Item { kind: Kind::AuthorizedKeys, source, target }];
    let (given_up, mut gave_up) = mpsc::unbounded_channel();
    let actors = CacheActorsConfig { daemon, sshd: sshd.spec(&nix_config), items };
    let actors = CacheActors::start(actors, &health, &given_up);

    let listener = TcpListener::bind(process.http)
        .await
        .map_err(|e| fail(&format!("can't listen on --http {}", process.http))(&e))?;
    let count = Arc::new(|| async {}.boxed());
    let state = HttpState { probed: Probed::Parts(health.clone()), count, log_filter };
    let stop = CancellationToken::new();
    let mut served = tokio::spawn(http::serve(listener, state, stop.clone().cancelled_owned()));
    let ended = tokio::select! {
        signal = first_signal() => { tracing::info!(signal, "stopping"); Ok(()) }
        Some(reason) = gave_up.recv() => Err(NodeError(reason)),
        early = &mut served => Err(NodeError(format!("the HTTP server ended: {early:?}"))),
    };
    stop.cancel();
    tokio::select! {
        () = actors.stop() => {}
        signal = first_signal() => {
            tracing::warn!(signal, "second signal: exit at once");
            std::process::exit(1); // the runtime's end would wait for work on the disk
        }
    }
    ended
}

/// What signs and what is believed is the daemon's, whatever its clients say: they are not trusted.
fn nix_config(config: &CacheConfig) -> Config {
    let process = &config.process;
    let list = |name: &str, values: String| (!values.is_empty()).then(|| (name.to_owned(), values));
    let keys = list("extra-trusted-public-keys", config.trusted_public_key.join(" "));
    let signing = config.signing_key.as_ref().map(|path| path.display().to_string());
    let signing = list("secret-key-files", signing.unwrap_or_default());
    Config {
        program: process.nix.clone(),
        daemon_socket: Some(process.run_dir.join("nix-daemon/socket")),
        nix_options: keys.into_iter().chain(signing).chain(process.nix_option.clone()).collect(),
        guard: Some("/proc/self/exe".into()),
        ..Config::new(process.state_dir.join("home"))
    }
}

fn sshd(config: &CacheConfig) -> Result<Sshd, NodeError> {
    let (process, settings) = (&config.process, &config.sshd);
    let listen = match settings.ssh_listen {
        Some(listen) => listen,
        None => SSH_LISTEN.parse().map_err(|e| fail("the default of --ssh-listen")(&e))?,
    };
    Ok(Sshd {
        program: settings.sshd.clone(),
        listen,
        state: process.state_dir.join("ssh"),
        host_key: settings.ssh_host_key.clone(),
        authorized_keys: process.run_dir.join("ssh/authorized_keys"),
        pid_file: process.run_dir.join("sshd.pid"),
    })
}
