//! A call as a span: the root of a trace, or a part of its caller's.

use tonic::{Code, Request, Status};
use tracing::{Instrument, Span};

use crate::trace::{self, Ending};

/// For a call that was not handled yet; `service` is the protocol's name of it.
pub(super) fn call<T>(request: &Request<T>, service: &'static str, method: &'static str) -> Span {
    let span = tracing::debug_span!(
        parent: None, "rpc", otel.kind = "server", otel.name = format!("{service}/{method}"),
        rpc.system = "grpc", rpc.service = service, rpc.method = method
    );
    trace::continue_from(&span, |name| request.metadata().get(name)?.to_str().ok());
    span
}

/// Handles it. What the caller is told is the span's status.
pub(super) async fn answer<T>(
    span: Span,
    handle: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let ending = Ending::new(&span);
    let answer = handle.instrument(span.clone()).await;
    let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
    trace::set(&span, "rpc.grpc.status_code", code as i64);
    if let Err(status) = &answer {
        trace::fail(&span, &status.message());
    }
    ending.done();
    answer
}
