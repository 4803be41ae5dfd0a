//! A node's life: start in order, serve, stop in order.

mod cluster;
mod nix;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::Shared;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::actors::builds::MemoryConfig;
use crate::actors::core::Admission;
use crate::actors::node::{DAEMON, NodeActors, NodeActorsConfig, VOLUMES};
use crate::config::NodeConfig;
use crate::grpc::{self, AdminService, Admittance, IdentityService, NodeFacts, NodeService};
use crate::health::{Condition, Health};
use crate::http::{self, HttpState};
use crate::k8s::Api;
use crate::model::System;
use crate::mount::{Mounts, RealMounts};
use crate::nix::{DaemonSpec, RealNix};
use crate::telemetry::{self, LogFilter};

/// Why a node did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

fn fail(what: &str) -> impl Fn(&dyn std::fmt::Display) -> NodeError {
    move |error| NodeError(format!("{what}: {error}"))
}

/// Runs a node until a signal or a core part's end. Actors and the futures of their effects live on
/// this thread; gRPC, HTTP, realisations and blocking work on the runtime's.
pub fn run(config: NodeConfig) -> Result<(), NodeError> {
    let log_filter = telemetry::init(&config.log, config.log_format).map_err(NodeError)?;
    if let Some(point) = &config.crash_at {
        arm(point)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| fail("can't start the runtime")(&e))?;
    let mut runtime = Some(runtime);
    #[expect(clippy::expect_used, reason = "actix calls this once")]
    let system = actix::System::with_tokio_rt(move || runtime.take().expect("one runtime"));
    system.block_on(node(config, log_filter))
}

#[cfg(debug_assertions)]
#[expect(clippy::unnecessary_wraps, reason = "a release build refuses")]
fn arm(point: &str) -> Result<(), NodeError> {
    crate::crash::arm(point);
    Ok(())
}

#[cfg(not(debug_assertions))]
fn arm(_: &str) -> Result<(), NodeError> {
    Err(NodeError("--crash-at is for debug builds".to_owned()))
}

async fn node(config: NodeConfig, log_filter: LogFilter) -> Result<(), NodeError> {
    let node_id = node_id(&config);
    let _locks = [lock("--run-dir", &config.run_dir)?, lock("--state-dir", &config.state_dir)?];
    let health = Health::waiting_for(&[DAEMON, VOLUMES]);
    let api = cluster::open_api(&config).await?;
    let (nix, capabilities) = nix::open(&config).await?;
    let mounts = open_mounts(&config).await?;
    let facts = NodeFacts {
        node_id: node_id.clone(),
        driver: config.driver_name.clone(),
        nix_version: capabilities.to_string(),
        presentation: mounts.presentation(),
        presentation_reason: less_than_asked(&mounts),
    };
    tracing::info!(?facts, "starting");
    let (given_up, mut gave_up) = mpsc::unbounded_channel();
    let actors = start_actors(&config, nix, Arc::new(mounts), api.clone(), &health, &given_up)?;

    let stop = CancellationToken::new();
    let served = serve(&config, facts, &health, &actors, log_filter, &stop).await?;
    tokio::pin!(served);
    let registrar = cluster::register(&config, api, &health);
    let recovered = actors.directory.clone();
    let ready = health.clone();
    tokio::spawn(async move {
        if recovered.recovered().await.is_ok() {
            ready.set(VOLUMES, &Condition::Ready);
        }
    });
    let ended = tokio::select! {
        signal = first_signal() => { tracing::info!(signal, "stopping; mounts stay"); Ok(()) }
        Some(reason) = gave_up.recv() => Err(NodeError(reason)),
        early = &mut served => early.and(Err(NodeError("the servers ended".to_owned()))),
    };
    if let Some(registrar) = registrar {
        registrar.stop().await;
    }
    stop.cancel();
    let stopping = async {
        if ended.is_ok() {
            let drained = tokio::time::timeout(config.grace, &mut served);
            if tokio::join!(drained, actors.flush(config.grace)).0.is_err() {
                tracing::warn!(grace = ?config.grace, "calls under way were cut off");
            }
        }
        if tokio::time::timeout(config.grace, actors.stop()).await.is_err() {
            tracing::warn!(grace = ?config.grace, "nix-daemon did not end in time");
        }
    };
    tokio::select! {
        () = stopping => {}
        signal = first_signal() => {
            tracing::warn!(signal, "second signal: exit at once");
            std::process::exit(1); // the runtime's end would wait for work on the disk
        }
    }
    ended
}

/// Why the node can do less than it was asked for; empty if it can do all.
fn less_than_asked(mounts: &RealMounts) -> String {
    let refusal = mounts.writable_refusal().map(|why| format!("no writable volumes: {why}"));
    let reasons = [mounts.fallback_reason().map(str::to_owned), refusal];
    reasons.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn node_id(config: &NodeConfig) -> String {
    config
        .node_id
        .clone()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// One driver per directory: two would unmount each other's volumes, or sweep each other's roots.
fn lock(option: &str, dir: &Path) -> Result<fs::File, NodeError> {
    let open = || {
        fs::create_dir_all(dir)?;
        fs::File::create(dir.join("lock"))
    };
    let file = open()
        .map_err(|e| fail(&format!("can't open the lock in {option} {}", dir.display()))(&e))?;
    file.try_lock().map_err(|_| {
        NodeError(format!("another nix-csi node runs with {option} {}", dir.display()))
    })?;
    Ok(file)
}

async fn open_mounts(config: &NodeConfig) -> Result<RealMounts, NodeError> {
    let mounts = crate::mount::Config {
        store_dir: crate::model::STORE_DIR.into(),
        views_dir: config.state_dir.join("views"),
        volumes_dir: config.state_dir.join("volumes"),
        target_roots: config.target_root.clone(),
        presentation: config.presentation.into(),
    };
    let opened = tokio::task::spawn_blocking(move || RealMounts::open(&mounts)).await;
    let mounts = opened.map_err(|e| fail("can't prepare mounts")(&e))?;
    mounts.map_err(|e| fail("can't prepare mounts")(&e))
}

fn start_actors(
    config: &NodeConfig,
    nix: RealNix,
    mounts: Arc<dyn Mounts>,
    cluster: Option<Arc<dyn Api>>,
    health: &Health,
    given_up: &mpsc::UnboundedSender<String>,
) -> Result<NodeActors, NodeError> {
    let daemon = if config.nix_daemon_socket.is_some() {
        health.set(DAEMON, &Condition::Ready); // lent, and seen to answer a moment ago
        None
    } else {
        let pid_file = config.run_dir.join("nix-daemon.pid");
        Some(DaemonSpec::new(nix::config_of(config), pid_file))
    };
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map_err(|e| fail("can't read the boot id")(&e))?;
    let settings = &config.builds;
    let actors = NodeActorsConfig {
        daemon,
        records: config.run_dir.join("volumes"),
        roots: nix::roots_dir(config),
        boot_id: boot_id.trim().into(),
        evaluation_slots: settings.eval_slots.into(),
        build_slots: settings.build_slots.into(),
        evaluation_builds: settings.allow_import_from_derivation,
        memory: MemoryConfig {
            refresh: settings.refresh_after,
            retry_min: settings.failure_backoff,
            retry_max: settings.failure_backoff_max,
        },
        cancel_grace: settings.cancel_grace,
        abandon_after: settings.abandon_after,
        keep_idle: config.keep_idle,
        verify_interval: config.verify_interval,
        cluster,
        sweep_after: config.cluster.sweep_after,
        uploads: nix::uploads(config),
    };
    NodeActors::start(actors, Arc::new(nix), mounts, health, given_up)
        .map_err(|e| fail("can't start")(&e))
}

type Serving = Shared<futures::future::BoxFuture<'static, Result<(), String>>>;

/// Binds everything, then serves in the background; the future ends when all servers have.
async fn serve(
    config: &NodeConfig,
    facts: NodeFacts,
    health: &Health,
    actors: &NodeActors,
    log_filter: LogFilter,
    stop: &CancellationToken,
) -> Result<impl Future<Output = Result<(), NodeError>> + use<>, NodeError> {
    let stopped: Shared<futures::future::BoxFuture<'static, ()>> = {
        let stop = stop.clone();
        async move { stop.cancelled().await }.boxed().shared()
    };
    let csi = config.endpoint.bind().map_err(|e| fail("CSI")(&e))?;
    let admin = config.admin_endpoint.bind().map_err(|e| fail("admin")(&e))?;
    let listener = TcpListener::bind(config.http)
        .await
        .map_err(|e| fail(&format!("can't listen on --http {}", config.http))(&e))?;
    let identity = IdentityService {
        driver: facts.driver.clone(),
        health: health.clone(),
        actors: actors.clone(),
    };
    let node = NodeService {
        node_id: facts.node_id.clone(),
        directory: actors.directory.clone(),
        builds: actors.builds.clone(),
        publishes: Admission::new("publishes", config.max_publishes as usize),
        hold: config.hold,
        admittance: Admittance {
            system: System::current(),
            allow_local_flakes: config.builds.allow_local_flakes,
            kubelet: config.cluster.kubelet_calls(),
            driver: config.driver_name.clone(),
        },
        pods: actors.pods.clone(),
    };
    let admin_service = AdminService {
        facts,
        health: health.clone(),
        directory: actors.directory.clone(),
        builds: actors.builds.clone(),
        views: actors.views.clone(),
        uploads: actors.uploads.clone(),
        stop: stop.clone(),
    };
    let http_state = HttpState {
        csi_socket: config.endpoint.path().to_owned(),
        directory: actors.directory.clone(),
        builds: actors.builds.clone(),
        log_filter,
    };
    let grpc = grpc::serve((csi, identity, node), (admin, admin_service), stopped.clone());
    let http = http::serve(listener, http_state, stopped);
    let all = async move { tokio::try_join!(grpc, http).map(|_| ()) };
    let all: Serving = tokio::spawn(all)
        .map(|ended| ended.unwrap_or_else(|panic| Err(panic.to_string())))
        .boxed()
        .shared();
    Ok(async move { all.await.map_err(NodeError) })
}

async fn first_signal() -> &'static str {
    let (term, int) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut term), Ok(mut int)) = (term, int) else {
        tracing::error!("can't listen to signals");
        tokio::time::sleep(Duration::MAX).await;
        return "none";
    };
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}
