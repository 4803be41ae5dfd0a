//! Traces: sent over OTLP, if there is a collector. What is sent is in `crate::trace` and where the spans are made.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::runtime::Runtime;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, filter};

use super::collector;
use super::export::{Export, Trouble};
use crate::config::TraceSettings;
use crate::lock::lock;
use crate::model::without_credentials;

const SERVICE: &str = "nix-csi";
/// How long the end of the process waits for a collector.
const LAST_WORD: Duration = Duration::from_secs(3);
/// How long one batch may take; the queue, of 2048 spans, is what waits meanwhile.
pub(super) const BATCH: Duration = Duration::from_secs(5);

/// What sends traces; nothing without a collector.
#[must_use = "what is under way is lost without its end"]
pub struct Traces(Option<Sending>);

struct Sending {
    provider: SdkTracerProvider,
    trouble: Arc<Mutex<Trouble>>,
    /// Its threads end with the process. Its end would wait for a resolver, and what still waits for an answer would
    /// have no clock any more.
    _runtime: ManuallyDrop<Runtime>,
}

impl Traces {
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Connects to nobody yet.
    pub(super) fn new(settings: &TraceSettings, host: &str) -> Result<Self, String> {
        let collector =
            settings.collector().map_err(|reason| format!("can't send traces: {reason}"))?;
        let Some(collector) = collector else { return Ok(Self(None)) };
        let shown = collector.to_string();
        let fail = |reason: String| {
            format!("can't send traces to {}: {reason}", without_credentials(&shown))
        };
        let runtime = collector::runtime().map_err(fail)?;
        let channel = {
            let _within = runtime.enter();
            collector::channel(collector, BATCH).map_err(fail)?
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(channel)
            .with_timeout(BATCH)
            .build()
            .map_err(|e| fail(e.to_string()))?;
        let trouble = Arc::default();
        let export = Export::new(exporter, runtime.handle().clone(), Arc::clone(&trouble));
        let mut provider = SdkTracerProvider::builder()
            .with_resource(resource(settings, host))
            .with_batch_exporter(export);
        if let Some(ratio) = settings.trace_ratio {
            let sampler = Sampler::TraceIdRatioBased(ratio);
            provider = provider.with_sampler(Sampler::ParentBased(Box::new(sampler)));
        }
        Ok(Self(Some(Sending {
            provider: provider.build(),
            trouble,
            _runtime: ManuallyDrop::new(runtime),
        })))
    }

    /// Spans of ours, and what is logged within them.
    pub(super) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer = self.0.as_ref()?.provider.tracer(SERVICE);
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
        let Some(sending) = self.0 else { return };
        tracing::info!("sending the last traces");
        let ended = sending.provider.shutdown_with_timeout(LAST_WORD);
        let lost_spans = lock(&sending.trouble).rest();
        match ended {
            Err(error) => tracing::warn!(lost_spans, %error, "the last traces were not sent"),
            Ok(()) if lost_spans > 0 => {
                tracing::warn!(lost_spans, "the last traces were not sent");
            }
            Ok(()) => {}
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
