//! A node's life, and a cache's: start in order, serve, stop in order.

mod actors;
mod cache;
mod clean;
mod cluster;
mod debug;
mod gc;
mod metrics;
mod mounts;
mod nix;
mod signals;
mod ssh;

pub use clean::clean;
pub use metrics::metric_families;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::mounts::{less_than_asked, mounts_in, open_mounts};
use self::signals::{end_at_a_signal, first_signal, unless_signalled_again};
use crate::actors::core::Admission;
use crate::actors::node::{CONFIG, DAEMON, NodeActors, VOLUMES};
use crate::actors::reconciler::{Item, bring_up_to_date};
use crate::config::{CacheConfig, NodeConfig, PrivilegesArg, ProcessSettings};
use crate::grpc::{self, AdminService, Admittance, IdentityService, NodeFacts, NodeService};
use crate::health::{Condition, Health};
use crate::http::{self, HttpState, Probed};
use crate::jail::capabilities::{self, CapabilitySet};
use crate::jail::{kernel, syscalls};
use crate::model::System;
use crate::mount::Mounts;
use crate::telemetry::{self, LogFilter};

/// Why a node or a cache did not start, or ended.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

fn fail(what: &str) -> impl Fn(&dyn std::fmt::Display) -> NodeError {
    move |error| NodeError(format!("{what}: {error}"))
}

/// Runs a node until a signal or a core part's end.
pub fn run(config: NodeConfig) -> Result<(), NodeError> {
    if let Some(point) = &config.crash_at {
        crate::crash::arm(point).map_err(NodeError)?;
    }
    let (process, host) = (config.process.clone(), node_id(&config));
    on_runtime(&process, capabilities::NODE, &host, |log_filter| node(config, log_filter))
}

/// Runs a cache until a signal or a core part's end.
pub fn run_cache(config: CacheConfig) -> Result<(), NodeError> {
    let (process, host) = (config.process.clone(), host_name());
    on_runtime(&process, capabilities::CACHE, &host, |filter| cache::cache(config, filter))
}

/// Actors and the futures of their effects live on this thread; gRPC, HTTP, realisations and blocking
/// work on the runtime's.
fn on_runtime<F: Future<Output = Result<(), NodeError>>>(
    process: &ProcessSettings,
    needed: CapabilitySet,
    host: &str,
    life: impl FnOnce(LogFilter) -> F,
) -> Result<(), NodeError> {
    // Threads inherit it.
    if process.privileges == PrivilegesArg::Least {
        kernel::shut().map_err(|e| fail("can't shut the kernel's files (see --privileges)")(&e))?;
        capabilities::keep_only(needed)
            .map_err(|e| fail("can't give up capabilities (see --privileges)")(&e))?;
        syscalls::can_be_refused().map_err(|e| no_seccomp(&e))?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| fail("can't start the runtime")(&e))?;
    let (log_filter, traces) = telemetry::init(process, host).map_err(NodeError)?;
    if process.privileges == PrivilegesArg::Least {
        kernel::say_what_stays_open();
    }
    runtime.spawn(telemetry::mind());
    let mut runtime = Some(runtime);
    #[expect(clippy::expect_used, reason = "actix calls this once")]
    let system = actix::System::with_tokio_rt(move || runtime.take().expect("one runtime"));
    let ended = system.block_on(life(log_filter));
    end_at_a_signal();
    telemetry::flush();
    traces.end();
    ended
}

fn no_seccomp(error: &std::io::Error) -> NodeError {
    NodeError(format!(
        "can't refuse system calls to Nix's programs: seccomp: {error}: the kernel needs \
         CONFIG_SECCOMP_FILTER, and who starts this must let it set filters; --privileges all refuses none"
    ))
}

async fn node(config: NodeConfig, log_filter: LogFilter) -> Result<(), NodeError> {
    let node_id = node_id(&config);
    let _locks = [
        lock("--run-dir", &config.process.run_dir)?,
        lock("--state-dir", &config.process.state_dir)?,
    ];
    let health = Health::waiting_for(&[DAEMON, VOLUMES, CONFIG]);
    let api = cluster::open_api(&config).await?;
    let nix_config = nix::config_of(&config);
    look_first(nix::mounted(&config)).await?;
    let roots = nix::roots_dir(&config);
    let (nix, capabilities) = nix::open(nix_config.clone(), &roots, &config.process).await?;
    let sshd = match config.sshd.ssh_listen {
        Some(listen) => Some(ssh::prepare_builder(&config, listen, &nix).await?),
        None => None,
    };
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
    let rooms = actors::Rooms { nix, mounts: Arc::new(mounts), cluster: api.clone(), sshd };
    let actors = actors::start(&config, rooms, &health, &given_up)?;

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
        let grace = config.process.grace;
        if ended.is_ok() {
            let drained = tokio::time::timeout(grace, &mut served);
            if tokio::join!(drained, actors.flush(grace)).0.is_err() {
                tracing::warn!(grace = ?grace, "calls under way were cut off");
            }
        }
        if tokio::time::timeout(grace, actors.stop()).await.is_err() {
            tracing::warn!(grace = ?grace, "nix-daemon did not end in time");
        }
    };
    unless_signalled_again(stopping).await;
    nix::remove_copies(&config.process);
    ended
}

fn node_id(config: &NodeConfig) -> String {
    config.node_id.clone().unwrap_or_else(host_name)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// What is mounted is read by what starts next.
async fn look_first(items: Vec<Item>) -> Result<(), NodeError> {
    let look = tokio::task::spawn_blocking(move || bring_up_to_date(&items)).await;
    look.map_err(|panic| fail("reading what is mounted")(&panic))
}

/// One driver per directory: two would unmount each other's volumes, or sweep each other's roots.
fn lock(option: &str, dir: &Path) -> Result<fs::File, NodeError> {
    let open = || {
        fs::create_dir_all(dir)?;
        fs::File::create(dir.join("lock"))
    };
    let file = open()
        .map_err(|e| fail(&format!("can't open the lock in {option} {}", dir.display()))(&e))?;
    file.try_lock()
        .map_err(|_| NodeError(format!("another nix-csi runs with {option} {}", dir.display())))?;
    Ok(file)
}

type Serving = Shared<BoxFuture<'static, Result<(), String>>>;

/// Binds everything, then serves in the background; the future ends when all servers have.
async fn serve(
    config: &NodeConfig,
    facts: NodeFacts,
    health: &Health,
    actors: &NodeActors,
    log_filter: LogFilter,
    stop: &CancellationToken,
) -> Result<impl Future<Output = Result<(), NodeError>> + use<>, NodeError> {
    let stopped: Shared<BoxFuture<'static, ()>> = {
        let stop = stop.clone();
        async move { stop.cancelled().await }.boxed().shared()
    };
    let csi = config.endpoint.bind().map_err(|e| fail("CSI")(&e))?;
    let admin = config.admin_endpoint.bind().map_err(|e| fail("admin")(&e))?;
    let listener = TcpListener::bind(config.process.http)
        .await
        .map_err(|e| fail(&format!("can't listen on --http {}", config.process.http))(&e))?;
    let identity = IdentityService {
        driver: facts.driver.clone(),
        health: health.clone(),
        actors: actors.clone(),
    };
    let node = NodeService {
        node_id: facts.node_id.clone(),
        directory: actors.directory.clone(),
        builds: actors.builds.clone(),
        publishes: Admission::new("publishes", "--max-publishes", config.max_publishes as usize),
        hold: config.hold,
        admittance: Admittance {
            system: System::current(),
            allow_local_flakes: config.builds.allow_local_flakes,
            // Whom the policy would not be asked for must be known to be the operator.
            kubelet: config.cluster.kubelet_calls() || config.policy.is_set(),
            exchanges_tokens: config.builds.token_exchange.is_some(),
            driver: config.driver_name.clone(),
        },
        pods: actors.pods.clone(),
    };
    let debug = debug::service(
        debug::Process {
            settings: &config.process,
            facts: debug::node_facts(config, &facts),
            health: health.clone(),
            gc: actors.gc.clone(),
            count: count(actors),
            access_tokens: config.builds.access_tokens_file.clone(),
        },
        stop,
    );
    let admin_service = AdminService {
        facts,
        health: health.clone(),
        directory: actors.directory.clone(),
        builds: actors.builds.clone(),
        views: actors.views.clone(),
        uploads: actors.uploads.clone(),
        keeper: actors.keeper.clone(),
        policy: actors.policy.clone(),
        gc: actors.gc.clone(),
        stop: stop.clone(),
    };
    let http_state = HttpState {
        probed: Probed::CsiSocket(config.endpoint.path().to_owned()),
        health: health.clone(),
        count: count(actors),
        log_filter,
    };
    let grpc = grpc::serve((csi, identity, node), (admin, admin_service, debug), stopped.clone());
    let http = http::serve(listener, http_state, stopped);
    let all = async move { tokio::try_join!(grpc, http).map(|_| ()) };
    let all: Serving = tokio::spawn(all)
        .map(|ended| ended.unwrap_or_else(|panic| Err(panic.to_string())))
        .boxed()
        .shared();
    Ok(async move { all.await.map_err(NodeError) })
}

/// What a node counts at scrape time.
fn count(actors: &NodeActors) -> Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync> {
    let (views, builds) = (actors.views.clone(), actors.builds.clone());
    Arc::new(move || {
        let (views, builds) = (views.clone(), builds.clone());
        async move { tokio::join!(views.count(), builds.count()).0 }.boxed()
    })
}
