//! What is sent to a collector: names as OpenTelemetry has them, and a word in the log when it can't be sent.

use std::sync::Mutex;
use std::time::Duration;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::time::Instant;

use crate::lock::lock;
use crate::model::without_credentials;

/// Between two lines about a collector that does not take what it is sent.
const SILENCE: Duration = Duration::from_secs(300);
/// Bytes of what of the exporter's own words is shown.
const MAX_REASON: usize = 300;

/// Fields of our spans that OpenTelemetry's conventions have a name for. Others with no namespace get ours.
const NAMES: [(&str, &str); 4] = [
    ("pod", "k8s.pod.name"),
    ("namespace", "k8s.namespace.name"),
    ("pod_uid", "k8s.pod.uid"),
    ("service_account", "k8s.serviceaccount.name"),
];

#[derive(Debug)]
pub(super) struct Export<E> {
    inner: E,
    trouble: Mutex<Trouble>,
}

impl<E> Export<E> {
    pub(super) fn new(inner: E) -> Self {
        Self { inner, trouble: Mutex::default() }
    }
}

impl<E: SpanExporter> SpanExporter for Export<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        for span in &mut batch {
            span.attributes.iter_mut().for_each(rename);
        }
        let sent = self.inner.export(batch).await;
        let now = Instant::now();
        match &sent {
            Ok(()) => {
                if lock(&self.trouble).ended() {
                    tracing::info!("traces are sent again");
                }
            }
            Err(error) => {
                if let Some(lost) = lock(&self.trouble).lost(spans as u64, now) {
                    let error = error.to_string();
                    let mut error = without_credentials(&error).into_owned();
                    error.truncate(error.floor_char_boundary(MAX_REASON));
                    tracing::warn!(lost_spans = lost, %error, "traces can't be sent");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

fn rename(attribute: &mut KeyValue) {
    let name = attribute.key.as_str();
    if name.contains('.') {
        return;
    }
    let known = NAMES.iter().find(|(ours, _)| *ours == name);
    attribute.key =
        known.map_or_else(|| Key::new(format!("nixcsi.{name}")), |(_, theirs)| Key::new(*theirs));
}

/// Counts what is lost, and says so now and then.
#[derive(Debug, Default)]
struct Trouble {
    lost: u64,
    said: Option<Instant>,
}

impl Trouble {
    /// How many were lost since this was said last, if it is time to say it.
    fn lost(&mut self, spans: u64, now: Instant) -> Option<u64> {
        self.lost += spans;
        if self.said.is_some_and(|said| now.duration_since(said) < SILENCE) {
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.lost))
    }

    /// Whether something was said of it.
    fn ended(&mut self) -> bool {
        self.said.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_away_is_named_once_in_a_while() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        assert!(!trouble.ended());
        assert_eq!(trouble.lost(3, start), Some(3));
        assert_eq!(trouble.lost(2, start + SILENCE / 2), None);
        assert_eq!(trouble.lost(1, start + SILENCE), Some(3));
        assert!(trouble.ended());
        assert!(!trouble.ended());
    }

    #[test]
    fn fields_get_the_names_of_the_conventions_or_a_namespace() {
        let named = |name: &'static str| {
            let mut attribute = KeyValue::new(name, 1);
            rename(&mut attribute);
            attribute.key.to_string()
        };
        assert_eq!(named("pod"), "k8s.pod.name");
        assert_eq!(named("volume"), "nixcsi.volume");
        assert_eq!(named("rpc.system"), "rpc.system");
    }
}
