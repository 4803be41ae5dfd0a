//! Work that blocks, away from the actors' thread.

use tokio::task::{JoinError, spawn_blocking};
use tracing::Span;

/// Runs `work` on a blocking thread, in the caller's span. An error is its panic. It is not stopped
/// when the future is dropped.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let span = Span::current();
    spawn_blocking(move || span.in_scope(work)).await
}
