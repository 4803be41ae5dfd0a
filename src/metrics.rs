//! The process's one Prometheus registry, and how metrics get into it.

use std::sync::Mutex;

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{Encoder, TextEncoder};

use crate::lock::lock;

/// Buckets of seconds; a warm publish takes fractions of a millisecond, a build may take an hour.
pub const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0,
];

/// A count as a gauge has it.
pub fn count<N: TryInto<i64>>(n: N) -> i64 {
    n.try_into().unwrap_or(i64::MAX)
}

/// What is registered under one name, also before its first sample.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Family {
    pub name: String,
    pub help: String,
    pub kind: &'static str,
    pub labels: Vec<String>,
}

static REGISTERED: Mutex<Vec<Family>> = Mutex::new(Vec::new());

/// What has been registered so far, by name.
pub fn families() -> Vec<Family> {
    let mut families = lock(&REGISTERED).clone();
    families.sort();
    families
}

/// Registers a metric at its first use.
///
/// # Panics
/// On an invalid or repeated name, which the first test that touches the metric shows.
pub fn register<C: Collector + Clone + 'static>(metric: prometheus::Result<C>) -> C {
    #[expect(clippy::expect_used, reason = "names are literals in this crate")]
    let metric = metric.expect("a valid metric name");
    #[expect(clippy::expect_used, reason = "each family is registered by one LazyLock")]
    prometheus::default_registry().register(Box::new(metric.clone())).expect("a new metric name");
    // Who has no samples yet is not gathered, and tells its kind and its labels all the same.
    for (desc, family) in metric.desc().into_iter().zip(metric.collect()) {
        lock(&REGISTERED).push(Family {
            name: desc.fq_name.clone(),
            help: desc.help.clone(),
            kind: kind(family.get_field_type()),
            labels: desc.variable_labels.clone(),
        });
    }
    metric
}

/// As the text format has it.
pub fn kind(of: MetricType) -> &'static str {
    match of {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "untyped",
    }
}

/// The registry in Prometheus' text format.
pub fn render() -> Result<String, prometheus::Error> {
    let mut text = Vec::new();
    TextEncoder::new().encode(&prometheus::gather(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
