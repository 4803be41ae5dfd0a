//! The process's one Prometheus registry, and how metrics get into it.

use prometheus::core::Collector;
use prometheus::{Encoder, TextEncoder};

/// Registers a metric at its first use.
///
/// # Panics
/// On an invalid or repeated name, which the first test that touches the metric shows.
pub fn register<C: Collector + Clone + 'static>(metric: prometheus::Result<C>) -> C {
    #[expect(clippy::expect_used, reason = "names are literals in this crate")]
    let metric = metric.expect("a valid metric name");
    #[expect(clippy::expect_used, reason = "each family is registered by one LazyLock")]
    prometheus::default_registry().register(Box::new(metric.clone())).expect("a new metric name");
    metric
}

/// The registry in Prometheus' text format.
pub fn render() -> Result<String, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&prometheus::gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
