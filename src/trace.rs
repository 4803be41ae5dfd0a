//! Spans of traces: what they are called, when they end, and what they say of a failure. Without an exporter
//! (`telemetry::traces`) nothing here does anything.
//!
//! A span that is only for traces has the level debug, so that it is in no log line. A field without a namespace
//! becomes `nixcsi.…` or what OpenTelemetry calls it; see `telemetry::export`.

use std::fmt::Display;

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, Status, TraceContextExt};
use opentelemetry::{Context, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::model::without_credentials;

/// The name in gRPC metadata, by W3C's Trace Context; in capitals, that of the environment variable.
pub const TRACEPARENT: &str = "traceparent";

/// Runs `work` in `span`. It ends with the work, even where something else still holds the span, and says with which
/// error.
pub async fn phase<T, E: Display>(
    span: Span,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let ending = Ending::new(&span);
    let result = work.instrument(span).await;
    ending.with(&result);
    result
}

/// The same for work that blocks.
pub fn blocking_phase<T, E: Display>(
    span: &Span,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let ending = Ending::new(span);
    let result = span.in_scope(work);
    ending.with(&result);
    result
}

/// The same for work that can't fail.
pub async fn waiting<T>(span: Span, work: impl Future<Output = T>) -> T {
    let done = phase(span, async { Ok::<_, std::convert::Infallible>(work.await) }).await;
    done.unwrap_or_else(|never| match never {})
}

/// Ends a span: a tracing span ends by itself only when nothing holds it or one below it any more, and a build or a
/// timer may hold it for long.
pub struct Ending {
    span: Span,
    done: bool,
}

impl Ending {
    pub fn new(span: &Span) -> Self {
        Self { span: span.clone(), done: false }
    }

    fn with<T, E: Display>(mut self, result: &Result<T, E>) {
        self.done = true;
        if let Err(error) = result {
            fail(&self.span, error);
        }
    }

    pub fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Ending {
    /// Before its work was done: nobody waits for it any more.
    fn drop(&mut self) {
        if self.span.is_disabled() {
            return;
        }
        if !self.done {
            set(&self.span, "unfinished", true);
        }
        self.span.context().span().end();
    }
}

/// A span below the one that is current. Where there is none, as in what the driver does for itself, none.
macro_rules! below {
    ($($span:tt)*) => {
        if tracing::Span::current().is_disabled() {
            tracing::Span::none()
        } else {
            tracing::debug_span!($($span)*)
        }
    };
}
pub(crate) use below;

pub fn fail(span: &Span, error: &dyn Display) {
    if !span.is_disabled() {
        // It is what the caller is told, and so without credentials already.
        span.set_status(Status::error(without_credentials(&error.to_string()).into_owned()));
    }
}

pub fn set(span: &Span, name: &'static str, value: impl Into<Value>) {
    if !span.is_disabled() {
        span.set_attribute(name, value);
    }
}

/// Once it is known what it was.
pub fn rename(span: &Span, name: &'static str) {
    if !span.is_disabled() {
        span.context().span().update_name(name);
    }
}

/// Each shows the other: neither is below the other, and one waits for the other.
pub fn link(waits: &Span, works: &Span) {
    if waits.is_disabled() || works.is_disabled() {
        return;
    }
    waits.add_link(context_of(works));
    works.add_link(context_of(waits));
}

fn context_of(span: &Span) -> SpanContext {
    span.context().span().span_context().clone()
}

/// Takes a caller's `traceparent` and `tracestate`, if they are such, for a span that was not entered yet.
pub fn continue_from<'a>(span: &Span, header: impl Fn(&str) -> Option<&'a str>) {
    struct Headers(Vec<(&'static str, String)>);
    impl opentelemetry::propagation::Extractor for Headers {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
        }
        fn keys(&self) -> Vec<&str> {
            self.0.iter().map(|(name, _)| *name).collect()
        }
    }
    if span.is_disabled() {
        return;
    }
    let known = [TRACEPARENT, "tracestate"].into_iter();
    let headers = Headers(known.filter_map(|key| Some((key, header(key)?.to_owned()))).collect());
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &headers);
    // It fails for a span that no exporter sees.
    let _ = span.set_parent(parent);
}

/// The current span, as W3C's Trace Context has it in an environment; for children that act in the driver's name.
pub fn environment() -> Option<(&'static str, String)> {
    let context = Span::current().context();
    let span = context.span();
    let of = span.span_context();
    of.is_valid().then(|| {
        let flags = of.trace_flags().to_u8();
        ("TRACEPARENT", format!("00-{}-{}-{flags:02x}", of.trace_id(), of.span_id()))
    })
}
