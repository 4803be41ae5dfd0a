//! A cache's life.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{NodeError, debug, fail, first_signal, gc, lock, nix, ssh, unless_signalled_again};
use crate::actors::cache::{CacheActors, CacheActorsConfig};
use crate::actors::node::{CONFIG, DAEMON, SSHD};
use crate::actors::reconciler::{Item, Kind};
use crate::actors::registry::{DEBOUNCE, Offer, Probe, RegistryConfig};
use crate::config::{CacheConfig, PrivilegesArg, SSH_LISTEN};
use crate::grpc;
use crate::health::Health;
use crate::http::{self, HttpState, Probed};
use crate::k8s::{Builders, RealBuilders};
use crate::model::{KeyFile, PublicKey};
use crate::nix::ssh::SshClient;
use crate::nix::ssh_key::{make_key, with_pub};
use crate::nix::{Config, NixError, daemon, greeting, notes_readings, sshd};
use crate::read::{SMALL, text_at_most};
use crate::relay::{Desk, Limits};
use crate::telemetry::LogFilter;

/// For a builder to say that it is there.
const BUILDER_ANSWERS: Duration = Duration::from_secs(5);

pub(super) async fn cache(config: CacheConfig, log_filter: LogFilter) -> Result<(), NodeError> {
    let process = &config.process;
    let _locks = [lock("--run-dir", &process.run_dir)?, lock("--state-dir", &process.state_dir)?];
    let health = Health::waiting_for(&[CONFIG, DAEMON, SSHD]);
    let mounted = mounted(&config);
    super::look_first(mounted.clone()).await?;
    let nix_config = nix_config(&config);
    // Nothing here makes roots.
    let (nix, capabilities) = nix::open(nix_config.clone(), &PathBuf::new(), process).await?;
    let listen = match config.sshd.ssh_listen {
        Some(listen) => listen,
        None => SSH_LISTEN.parse().map_err(|e| fail("the default of --ssh-listen")(&e))?,
    };
    let sshd = ssh::prepare(process, &config.sshd, listen, &nix_config, None).await?;
    let desk = desk(&config)?;
    let builder_key = builder_key(&config).await?;
    tracing::info!(nix = %capabilities, ssh = %listen, %builder_key, "starting");

    let daemon = daemon::spec(&nix_config, process.run_dir.join("nix-daemon.pid"));
    let daemon = daemon.map_err(|e| fail("nix-daemon")(&e))?;
    let daemon = daemon.ok_or_else(|| NodeError("nix-daemon has no socket".to_owned()))?;
    let items = mounted.into_iter().chain([sshd.keys]).collect();
    let conf = nix::conf(process, &nix);
    let builders = builders(&config).await?;
    let (given_up, mut gave_up) = mpsc::unbounded_channel();
    if !notes_readings(&nix_config.store_dir) {
        tracing::warn!(
            "the store's file system is mounted noatime: what is served counts as used when it came \
             (docs/gc.md)"
        );
    }
    let (gc, used, store) = (gc::cache(&config.gc)?, gc::used(process), Arc::new(nix));
    let sshd = sshd.child;
    let actors = CacheActorsConfig { daemon, sshd, items, conf, builders, gc, used, store };
    let actors = CacheActors::start(actors, &health, &given_up);

    let listener = TcpListener::bind(process.http)
        .await
        .map_err(|e| fail(&format!("can't listen on --http {}", process.http))(&e))?;
    let admin = config.admin_endpoint().bind().map_err(|e| fail("admin")(&e))?;
    let stop = CancellationToken::new();
    let count: http::Count = Arc::new(|| async {}.boxed());
    let mut debug = debug::service(
        debug::Process {
            settings: process,
            facts: vec!["role: cache".to_owned(), format!("nix: {capabilities}")],
            health: health.clone(),
            gc: actors.gc.clone(),
            count: count.clone(),
            access_tokens: None,
        },
        &stop,
    );
    debug.origins.push(debug::machines(&machines(&config)));
    let state = HttpState { probed: Probed::Parts, count, log_filter, health: health.clone() };
    tokio::spawn(desk.serve());
    tokio::spawn(grpc::serve_debug(admin, debug, stop.clone().cancelled_owned()));
    let mut served = tokio::spawn(http::serve(listener, state, stop.clone().cancelled_owned()));
    let ended = tokio::select! {
        signal = first_signal() => { tracing::info!(signal, "stopping"); Ok(()) }
        Some(reason) = gave_up.recv() => Err(NodeError(reason)),
        early = &mut served => Err(NodeError(format!("the HTTP server ended: {early:?}"))),
    };
    stop.cancel();
    let stopping = async {
        if tokio::time::timeout(2 * process.grace, actors.stop()).await.is_err() {
            tracing::warn!(grace = ?process.grace, "sshd or nix-daemon did not end in time");
        }
    };
    unless_signalled_again(stopping).await;
    nix::remove_copies(&config.process);
    ended
}

/// Mounted files, and where their copies are that Nix and ssh read.
fn mounted(config: &CacheConfig) -> Vec<Item> {
    given_key(config).into_iter().chain(signing_key(config)).collect()
}

/// The key for builders, if it is not one of our own.
fn given_key(config: &CacheConfig) -> Option<Item> {
    nix::copied(&config.process, Kind::PrivateKey, &config.builders.builder_key)
}

fn signing_key(config: &CacheConfig) -> Option<Item> {
    nix::copied(&config.process, Kind::SigningKey, &config.signing_key)
}

/// What signs and what is believed is the daemon's, whatever its clients say: they are not trusted.
fn nix_config(config: &CacheConfig) -> Config {
    let process = &config.process;
    let list = |name: &str, values: String| (!values.is_empty()).then(|| (name.to_owned(), values));
    let keys = list("extra-trusted-public-keys", config.trusted_public_key.join(" "));
    let signing = nix::signs_with(signing_key(config));
    let builders = [
        ("builders", format!("@{}", machines(config).display())),
        ("builders-use-substitutes", "true".to_owned()),
        ("max-jobs", config.local_jobs.to_string()),
    ];
    let builders = builders.map(|(name, value)| (name.to_owned(), value));
    let ours = keys.into_iter().chain(signing).chain(builders);
    let ssh = SshClient { key: Some(own_key(config)), ..SshClient::default() };
    Config {
        program: process.programs.nix.clone(),
        search_path: process.programs.search_path.clone(),
        daemon_socket: Some(process.run_dir.join("nix-daemon/socket")),
        desk: Some(desk_socket(config)),
        environment: vec![("NIX_SSHOPTS".into(), ssh.options().into())],
        conf: nix::conf_in_use(process),
        nix_options: ours.chain(process.nix_option.clone()).collect(),
        // A client may still ask for a build here, which then has its sandbox or is none: Nix asks clients
        // how many builds they want at once, and `local_jobs` is its default.
        builds: config.local_jobs > 0,
        guard: Some("/proc/self/exe".into()),
        least_privilege: process.privileges == PrivilegesArg::Least,
        ..Config::new(process.state_dir.join("home"))
    }
}

fn desk_socket(config: &CacheConfig) -> PathBuf {
    config.process.run_dir.join("desk.sock")
}

/// Where sessions ask for leave.
fn desk(config: &CacheConfig) -> Result<Desk, NodeError> {
    make_room(config.max_sessions)?;
    let limits = Limits {
        sessions: config.max_sessions,
        per_key: config.sessions_per_key(),
        transfers: config.max_transfers,
    };
    let account = sshd::account().map_err(|e| fail("sshd")(&e))?;
    let socket = desk_socket(config);
    let opened = Desk::open(&socket, account, limits);
    opened.map_err(|e| fail(&format!("can't listen at {}", socket.display()))(&e))
}

/// A session is an open file here, and other files are open too.
fn make_room(sessions: usize) -> Result<(), NodeError> {
    const OTHERS: u64 = 512;
    let needed = sessions as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let set = setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum });
    let limit = maximum.map_or_else(|| "none".to_owned(), |most| most.to_string());
    set.map_err(|e| {
        NodeError(format!(
            "--max-sessions {sessions} needs {needed} open files, and the hard limit is {limit}: {e}: \
             raise it (LimitNOFILE=, ulimit -Hn) or give fewer sessions"
        ))
    })
}

/// The public half of the key with which the cache logs in at builders; made if there is none.
async fn builder_key(config: &CacheConfig) -> Result<String, NodeError> {
    if let Some(given) = &config.builders.builder_key {
        return Ok(format!("as in {}", given.display()));
    }
    let key = own_key(config);
    let programs = config.process.programs.search_path.clone();
    let made = tokio::task::spawn_blocking(move || {
        make_key(&key, &programs)?;
        let public = with_pub(&key);
        text_at_most(&public, SMALL).map_err(|e| NixError::Command {
            what: "reading the key for builders".to_owned(),
            detail: format!("{}: {e}", public.display()),
        })
    });
    let public = made.await.map_err(|e| fail("the key for builders")(&e))?;
    Ok(public.map_err(|e| fail("the key for builders")(&e))?.trim().to_owned())
}

/// Made here, or a copy of one that is mounted.
fn own_key(config: &CacheConfig) -> PathBuf {
    let own = || config.process.state_dir.join("ssh/builder_ed25519");
    given_key(config).map_or_else(own, |key| key.target)
}

fn machines(config: &CacheConfig) -> PathBuf {
    config.process.run_dir.join("machines")
}

/// Where builders come from, if there is a cluster to ask.
async fn builders(
    config: &CacheConfig,
) -> Result<Option<(RegistryConfig, Arc<dyn Builders>, Probe)>, NodeError> {
    let settings = &config.builders;
    let Some(namespace) = &settings.builder_namespace else {
        return Ok(None);
    };
    let kubeconfig = settings.kubeconfig.as_deref();
    let source = RealBuilders::open(namespace, &settings.builder_selector, kubeconfig).await;
    let source = source.map_err(|e| fail("--builder-namespace")(&e))?;
    let host_key = settings.builder_host_key.as_deref().map(|path| {
        let read = text_at_most(path, SMALL).map_err(|e| e.to_string());
        read.and_then(|text| PublicKey::parse(&text).map_err(|e| e.to_string()))
            .map_err(|e| fail(&format!("--builder-host-key {}", path.display()))(&e))
    });
    let registry = RegistryConfig {
        machines: machines(config),
        key: Some(KeyFile::parse(&own_key(config)).map_err(|e| fail("--state-dir")(&e))?),
        host_key: host_key.transpose()?,
        address: settings.builder_address.into(),
        cluster_domain: settings.cluster_domain.clone(),
        defaults: Offer {
            features: settings.builder_feature.iter().cloned().collect(),
            ..Offer::default()
        },
        jobs: settings.builder_jobs,
        asks_first: true,
        debounce: DEBOUNCE,
    };
    let probe: Probe = Arc::new(|address| {
        async move { greeting::answers(&format!("{address}:22"), BUILDER_ANSWERS).await }.boxed()
    });
    Ok(Some((registry, Arc::new(source), probe)))
}
