//! Logs: one subscriber for the process, with a filter that can be changed while it runs.
//!
//! What is written passes [`limited`], and its end is kept ([`recent`]).

mod limited;
mod recent;

use std::io::IsTerminal;
use std::sync::{Arc, LazyLock};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::limited::Limited;
pub use self::recent::recent;
use crate::config::LogFormat;

/// Each failed call to the API server is reported by whoever made it, with what it was for.
pub const DEFAULT_FILTER: &str = "info,kube_client=off";

/// Of this process.
static LIMITED: LazyLock<Limited> = LazyLock::new(Limited::default);

type Reload = reload::Handle<EnvFilter, Registry>;

/// The log filter of this process.
#[derive(Clone)]
pub struct LogFilter(Arc<Reload>);

/// Installs the subscriber; call it once. Logs go to standard error.
pub fn init(filter: &str, format: LogFormat) -> Result<LogFilter, String> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(recent::Tee);
    let lines = match format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(lines.with_filter(LIMITED.clone()))
        .try_init()
        .map_err(|e| format!("can't start logging: {e}"))?;
    limited::show();
    Ok(LogFilter(Arc::new(handle)))
}

/// Tells of lines that were not written, minute by minute. It has no end.
pub async fn mind() {
    LIMITED.clone().mind().await;
}

/// The same at the end of the process.
pub fn flush() {
    LIMITED.flush();
}

pub(crate) fn register_metrics() {
    limited::show();
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(filter)
        .map_err(|e| format!("{filter:?}: {e}: write for example info,nix_csi=debug"))
}

/// A filter that can be parsed, for the command line.
pub fn checked(filter: &str) -> Result<String, String> {
    parse(filter).map(|_| filter.to_owned())
}

impl LogFilter {
    pub fn set(&self, filter: &str) -> Result<(), String> {
        self.0.reload(parse(filter)?).map_err(|e| e.to_string())
    }

    pub fn current(&self) -> String {
        self.0.with_current(ToString::to_string).unwrap_or_default()
    }
}
