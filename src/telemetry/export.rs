//! What is sent to a collector: names as OpenTelemetry has them, and a word in the log when it can't be sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::{Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::traces::BATCH;
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
    /// Whose clock counts: who exports is no thread of a runtime.
    runtime: Handle,
    trouble: Arc<Mutex<Trouble>>,
}

impl<E> Export<E> {
    pub(super) fn new(inner: E, runtime: Handle, trouble: Arc<Mutex<Trouble>>) -> Self {
        Self { inner, runtime, trouble }
    }
}

impl<E: SpanExporter> SpanExporter for Export<E> {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        for span in &mut batch {
            span.attributes.iter_mut().for_each(rename);
        }
        // The exporter's own limit begins when there is a connection.
        let in_time = {
            let _within = self.runtime.enter();
            timeout(BATCH, self.inner.export(batch))
        };
        let sent = in_time.await.unwrap_or(Err(OTelSdkError::Timeout(BATCH)));
        let now = Instant::now();
        match &sent {
            Ok(()) => {
                if let Some(lost_spans) = lock(&self.trouble).ended() {
                    tracing::info!(lost_spans, "traces are sent again");
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
pub(super) struct Trouble {
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
        Some(self.rest())
    }

    /// If something was said of it: how many were lost since.
    fn ended(&mut self) -> Option<u64> {
        self.said.take().map(|_| self.rest())
    }

    /// How many were lost that nothing was said of.
    pub(super) fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_that_is_away_is_named_once_in_a_while() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        assert_eq!(trouble.ended(), None);
        assert_eq!(trouble.lost(3, start), Some(3));
        assert_eq!(trouble.lost(2, start + SILENCE / 2), None);
        assert_eq!(trouble.lost(1, start + SILENCE), Some(3));
        assert_eq!(trouble.lost(4, start + SILENCE), None);
        assert_eq!((trouble.ended(), trouble.ended()), (Some(4), None));
        // The next time says nothing of the last one.
        assert_eq!(trouble.lost(2, start + SILENCE), Some(2));
        assert_eq!(trouble.lost(1, start + SILENCE), None);
        assert_eq!((trouble.rest(), trouble.rest()), (1, 0));
    }

    #[derive(Debug)]
    struct Hangs;

    impl SpanExporter for Hangs {
        async fn export(&self, _batch: Vec<SpanData>) -> OTelSdkResult {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_has_its_time_whatever_the_exporter_waits_for() {
        let export = Export::new(Hangs, Handle::current(), Arc::default());
        let began = Instant::now();
        assert!(matches!(export.export(Vec::new()).await, Err(OTelSdkError::Timeout(BATCH))));
        assert_eq!(began.elapsed(), BATCH);
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
