//! Traces: sent over OTLP, if there is a collector. What is sent is in `crate::trace` and where the spans are made.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter};

use super::export::Export;
use crate::config::TraceSettings;

const SERVICE: &str = "nix-csi";
/// How long the end of the process waits for a collector.
const LAST_WORD: Duration = Duration::from_secs(3);
/// How long one batch may take; the queue, of 2048 spans, is what waits meanwhile.
const BATCH: Duration = Duration::from_secs(5);

/// What sends traces; nothing without a collector.
#[must_use = "what is under way is lost without its end"]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Connects to nobody yet. To be called within the runtime.
    pub(super) fn new(settings: &TraceSettings, host: &str) -> Result<Self, String> {
        let Some(endpoint) = settings.endpoint() else { return Ok(Self(None)) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(BATCH)
            .build()
            .map_err(|e| format!("can't send traces to {endpoint}: {e}"))?;
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource(settings, host))
            .with_batch_exporter(Export::new(exporter));
        if let Some(ratio) = settings.trace_ratio {
            let sampler = Sampler::TraceIdRatioBased(ratio);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(sampler)));
        }
        Ok(Self(Some(provider.build())))
    }

    /// Spans of ours, and what is logged within them.
    pub(super) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.0.as_ref()?.tracer(SERVICE);
        let ours = filter::filter_fn(|metadata| {
            let most = if metadata.is_span() { Level::DEBUG } else { Level::INFO };
            metadata.target().starts_with("nix_csi") && *metadata.level() <= most
        });
        let layer = tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            // A span's status is what its caller is told.
            .with_error_events_to_status(false)
            .with_error_events_to_exceptions(false);
        Some(layer.with_filter(ours.with_max_level_hint(LevelFilter::DEBUG)))
    }

    /// Sends what is left, for a few seconds at most.
    pub fn end(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(LAST_WORD)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Whose spans they are. What the standard variables say wins.
fn resource(settings: &TraceSettings, host: &str) -> Resource {
    let ours = [
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", host.to_owned()),
        KeyValue::new("host.name", host.to_owned()),
    ];
    let told = |(name, value): (&str, &str)| KeyValue::new(name.to_owned(), value.to_owned());
    let told = settings.attributes().map(told);
    let resource = Resource::builder_empty().with_attributes(ours).with_attributes(told);
    match settings.service_name() {
        Some(name) => resource.with_service_name(name.to_owned()).build(),
        None => resource.build(),
    }
}
