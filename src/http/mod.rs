//! `/metrics`, `/healthz`, `/readyz` and `/log-filter`.
//!
//! A node's health is asked through the CSI socket's own path: an unlinked socket is invisible from
//! inside.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::routing::get;
use futures::future::BoxFuture;
use tokio::net::TcpListener;

use crate::grpc::client;
use crate::grpc::proto::csi::ProbeRequest;
use crate::health::{Condition, Health};
use crate::telemetry::LogFilter;

/// A healthy node answers a probe in well under a millisecond.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// Counts what is only counted when somebody looks.
pub type Count = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Clone)]
pub struct HttpState {
    pub probed: Probed,
    pub count: Count,
    pub log_filter: LogFilter,
    pub health: Health,
}

/// Who says whether the process is ready.
#[derive(Clone)]
pub enum Probed {
    /// The CSI service behind this socket.
    CsiSocket(PathBuf),
    /// The process's parts.
    Parts,
}

type Answer = Result<String, (StatusCode, String)>;

/// Serves until `stop` ends.
pub async fn serve(
    listener: TcpListener,
    state: HttpState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), String> {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/log-filter", get(log_filter).put(set_log_filter))
        .with_state(state)
        .into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, routes).with_graceful_shutdown(stop).await;
    served.map_err(|e| format!("the HTTP server failed: {e}"))
}

async fn metrics(State(state): State<HttpState>) -> Answer {
    (state.count)().await;
    crate::metrics::render().map_err(|e| (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

/// Whether a client that dials the socket's path gets an answer: starting or ready, not sick.
async fn healthz(State(state): State<HttpState>) -> Answer {
    probe(&state).await.map(|_| "ok\n".to_owned())
}

async fn readyz(State(state): State<HttpState>) -> Answer {
    if !probe(&state).await? {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "starting\n".to_owned()));
    }
    Ok(match state.health.overall() {
        (Condition::Impaired(reason), _) => format!("ready, but: {reason}\n"),
        _ => "ready\n".to_owned(),
    })
}

async fn probe(state: &HttpState) -> Result<bool, (StatusCode, String)> {
    let sick = |reason: String| (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    let csi_socket = match &state.probed {
        Probed::CsiSocket(path) => path,
        Probed::Parts => {
            return match state.health.overall() {
                (Condition::Ready | Condition::Impaired(_), _) => Ok(true),
                (Condition::Starting, _) => Ok(false),
                (Condition::Sick(_), reason) => Err(sick(reason)),
            };
        }
    };
    let asked = async {
        let mut identity = client::identity(csi_socket).await.map_err(|e| sick(e.to_string()))?;
        let answer = identity.probe(ProbeRequest {}).await.map_err(|e| sick(e.message().into()))?;
        Ok(answer.into_inner().ready.unwrap_or(true))
    };
    tokio::time::timeout(PROBE_LIMIT, asked)
        .await
        .unwrap_or_else(|_| Err(sick(format!("no answer to a probe within {PROBE_LIMIT:?}"))))
}

async fn log_filter(State(state): State<HttpState>) -> String {
    state.log_filter.current() + "\n"
}

/// From this machine only: whoever reads metrics over the network must not turn logs off.
async fn set_log_filter(
    State(state): State<HttpState>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    filter: String,
) -> Answer {
    if !peer.ip().is_loopback() {
        let refusal = "the log filter can be changed from loopback only\n".to_owned();
        return Err((StatusCode::FORBIDDEN, refusal));
    }
    state.log_filter.set(filter.trim()).map_err(|e| (StatusCode::BAD_REQUEST, e + "\n"))?;
    Ok(state.log_filter.current() + "\n")
}
