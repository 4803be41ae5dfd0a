//! One push, and what follows from its end.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::CacheUploader;
use super::metrics;
use super::record::Record;
use crate::actors::core::{Ctx, jitter};
use crate::model::StorePath;
use crate::nix::{NixError, PushError};
use crate::trace;

impl CacheUploader {
    /// Sends a batch of the queue.
    pub(super) fn push(&mut self, batch: Vec<StorePath>, ctx: &mut Ctx<Self>) {
        self.pushing += 1;
        let began = Instant::now();
        let pushed = self.nix.push(batch.clone(), self.to.clone());
        // Not on the actors' thread, which would read every line that Nix prints.
        let span = tracing::debug_span!(parent: None, "upload", closures = batch.len());
        let task = AbortOnDropHandle::new(tokio::spawn(trace::phase(span.clone(), pushed)));
        let cut_off = self.cut_off.clone();
        let effect = async move {
            let ended = cut_off.run_until_cancelled(task).await?;
            Some(ended.unwrap_or_else(|panic| {
                let cause = NixError::panicked("the upload", &panic).to_string();
                Err(PushError::Temporary { cause })
            }))
        };
        ctx.effect(effect, move |this, result, ctx| {
            this.pushing -= 1;
            span.in_scope(|| this.ended(&batch, result, began.elapsed(), ctx));
            this.end_if_stopped();
            this.go_on(ctx);
        });
    }

    /// `result` is `None` for a push that was cut off.
    fn ended(
        &mut self,
        batch: &[StorePath],
        result: Option<Result<(), PushError>>,
        took: Duration,
        ctx: &mut Ctx<Self>,
    ) {
        let now = self.clock.now();
        let Some(result) = result else {
            return self.queue.put_back(batch, now);
        };
        let outcome = result.as_ref().map_or_else(PushError::kind, |()| "ok");
        metrics::UPLOAD_SECONDS.with_label_values(&[outcome]).observe(took.as_secs_f64());
        if !matches!(result, Err(PushError::Gone { .. })) {
            metrics::show_last_upload(result.as_ref().map_or_else(PushError::end, |()| "ok"));
        }
        let Err(error) = result else {
            return self.uploaded(batch, ctx);
        };
        let text = error.to_string();
        match (error, batch) {
            (PushError::Gone { path }, _) if batch.contains(&path) => {
                tracing::info!(%path, "not uploaded: it is not in the store any more");
                self.queue.put_back(batch, now);
                self.queue.remove(&path);
                self.remove(vec![path], "gone", ctx);
            }
            (PushError::Temporary { .. }, _) => {
                tracing::warn!(closures = batch.len(), error = %text, "the cache is away");
                let changed = self.queue.cache_failed(batch, &text, now, jitter());
                self.failed("temporary", changed, ctx);
            }
            (PushError::Refused { .. } | PushError::Gone { .. }, [path]) => {
                tracing::warn!(%path, error = %text, "the cache refused a closure");
                let changed = self.queue.refused(path, &text, now, jitter());
                self.failed("refused", changed.into_iter().collect(), ctx);
            }
            (PushError::Refused { .. } | PushError::Gone { .. }, _) => {
                tracing::warn!(closures = batch.len(), error = %text, "each is tried alone");
                self.queue.split(batch, now);
            }
        }
    }

    fn uploaded(&mut self, batch: &[StorePath], ctx: &mut Ctx<Self>) {
        tracing::debug!(closures = batch.len(), "uploaded");
        for path in batch {
            self.queue.uploaded(path);
            self.sent.insert(path.clone());
        }
        self.remove(batch.to_vec(), "ok", ctx);
    }

    fn failed(&mut self, outcome: &str, changed: Vec<Record>, ctx: &mut Ctx<Self>) {
        metrics::UPLOADS.with_label_values(&[outcome]).inc_by(changed.len() as u64);
        for dead in changed.iter().filter(|record| record.dead) {
            metrics::UPLOADS.with_label_values(&["dead"]).inc();
            let error = dead.last_error.as_deref().unwrap_or_default();
            tracing::error!(path = %dead.path, error, "an upload was given up");
        }
        self.save(changed, ctx);
    }
}
