//! Garbage collections, as people are told.

use super::proto::admin::Gc;
use crate::actors::gc::GcHandle;

/// `None`: its actor is gone for a moment.
pub(super) async fn gc(handle: &GcHandle) -> Option<Gc> {
    let status = handle.status().await.ok()?;
    let mut gc = Gc { error: status.error.unwrap_or_default(), ..Gc::default() };
    if let Some((step, time)) = status.step {
        (gc.step, gc.step_seconds) = (step.to_owned(), time.as_secs_f64());
    }
    if let Some((ago, text)) = status.last {
        (gc.last, gc.last_seconds_ago) = (text, Some(ago.as_secs_f64()));
    }
    Some(gc)
}
