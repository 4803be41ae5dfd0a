//! The connection to a collector. A runtime of its own drives it, which nobody waits for: a name that can't be
//! resolved holds a thread for as long as the resolver likes.

use std::time::Duration;

use http::Uri;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// How long one attempt may take once the name is known.
const CONNECT: Duration = Duration::from_secs(3);

/// A name is asked for by one of them at a time.
const MAX_BLOCKING: usize = 2;

pub(super) fn runtime() -> Result<Runtime, String> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(MAX_BLOCKING)
        .thread_name("traces")
        .enable_all()
        .build()
        .map_err(|e| format!("can't start a runtime: {e}"))
}

/// Connects to nobody yet. To be called within the runtime. `batch` is how long one answer may take.
pub(super) fn channel(collector: Uri, batch: Duration) -> Result<Channel, String> {
    let with_tls = collector.scheme_str() == Some("https");
    let mut endpoint = Endpoint::from(collector).connect_timeout(CONNECT).timeout(batch);
    if with_tls {
        let tls = ClientTlsConfig::new().with_native_roots().timeout(CONNECT);
        endpoint = endpoint.tls_config(tls).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            format!("TLS: {}", cause.unwrap_or_else(|| error.to_string()))
        })?;
    }
    Ok(endpoint.connect_lazy())
}
