//! The connection to an API server, as the driver's service account or as a kubeconfig says.

use std::path::Path;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{ApiError, CALL_LIMIT};

/// Seconds after which the API server ends a watch and it is begun anew. A connection whose other end
/// vanished without a word is noticed only then.
pub(super) const WATCH_SECONDS: u32 = 60;

const WHAT: &str = "configure the Kubernetes client";

/// Reads the configuration; nothing is asked of the API server yet. Without a kubeconfig it is
/// that of a pod: its service account and the addresses in its environment.
pub(super) async fn open(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    let config = match kubeconfig {
        Some(path) => of_file(path).await?,
        None => Config::incluster().map_err(|e| invalid(&e))?,
    };
    connect(config)
}

/// As [`open`], but without a kubeconfig it is the one that kubectl would take (`KUBECONFIG`,
/// `~/.kube/config`), and that of a pod where there is none.
pub(super) async fn open_as_person(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    connect(match kubeconfig {
        Some(path) => of_file(path).await?,
        None => Config::infer().await.map_err(|e| invalid(&e))?,
    })
}

/// Runs a call within its limit and names it in its error.
pub(super) async fn call<T>(
    what: &'static str,
    work: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    let slow = |_| ApiError::Down { what, reason: format!("no answer within {CALL_LIMIT:?}") };
    let done = tokio::time::timeout(CALL_LIMIT, work).await.map_err(slow)?;
    done.map_err(|e| ApiError::new(what, &e))
}

fn invalid(error: &dyn ToString) -> ApiError {
    ApiError::Invalid { what: WHAT, reason: error.to_string() }
}

async fn of_file(path: &Path) -> Result<Config, ApiError> {
    let file = Kubeconfig::read_from(path).map_err(|e| invalid(&e))?;
    let options = KubeConfigOptions::default();
    Config::from_custom_kubeconfig(file, &options).await.map_err(|e| invalid(&e))
}

fn connect(mut config: Config) -> Result<Client, ApiError> {
    // Whoever calls knows how long it is worth it.
    config.default_retry = false;
    config.connect_timeout = Some(CALL_LIMIT);
    config.read_timeout = Some(2 * Duration::from_secs(WATCH_SECONDS.into()));
    Client::try_from(config).map_err(|e| invalid(&e))
}
