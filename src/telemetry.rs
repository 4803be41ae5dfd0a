//! Logs: one subscriber for the process, with a filter that can be changed while it runs. And traces, if they are
//! sent somewhere.
//!
//! What is written passes [`limited`], and its end is kept ([`recent`]).

mod collector;
mod export;
mod ids;
mod limited;
mod recent;
mod traces;

use std::io::IsTerminal;
use std::sync::{Arc, LazyLock};

use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use self::ids::WithIds;
use self::limited::Limited;
pub use self::recent::recent;
pub use self::traces::Traces;
use crate::config::{LogFormat, ProcessSettings};

/// Each failed call to the API server is reported by whoever made it, with what it was for.
pub const DEFAULT_FILTER: &str = "info,kube_client=off";

/// Of this process.
static LIMITED: LazyLock<Limited> = LazyLock::new(Limited::default);

type Reload = reload::Handle<EnvFilter, Registry>;

/// The log filter of this process.
#[derive(Clone)]
pub struct LogFilter(Arc<Reload>);

/// Installs the subscriber; call it once. Logs go to standard error. `host` is who speaks in
/// traces.
pub fn init(process: &ProcessSettings, host: &str) -> Result<(LogFilter, Traces), String> {
    let (filter, handle) = reload::Layer::new(parse(&process.log)?);
    // Volumes matter more.
    let (traces, refused) = match Traces::new(&process.traces, host) {
        Ok(traces) => (traces, None),
        Err(reason) => (Traces::none(), Some(reason)),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(recent::Tee);
    let lines = match process.log_format {
        LogFormat::Json => {
            let inner = format().json().flatten_event(true);
            lines.json().event_format(WithIds { inner, json: true }).boxed()
        }
        LogFormat::Human => {
            let ansi = std::io::stderr().is_terminal();
            let inner = format().with_ansi(ansi);
            lines.with_ansi(ansi).event_format(WithIds { inner, json: false }).boxed()
        }
    };
    // The filter is of the lines alone.
    tracing_subscriber::registry()
        .with(lines.with_filter(filter.and(LIMITED.clone())))
        .with(traces.layer())
        .try_init()
        .map_err(|e| format!("can't start logging: {e}"))?;
    limited::show();
    if let Some(reason) = refused {
        tracing::warn!("{reason}: there are none");
    }
    Ok((LogFilter(Arc::new(handle)), traces))
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
