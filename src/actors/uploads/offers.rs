//! What builds offer to the queue: a closure, and what it was built from.

use std::sync::Arc;

use actix::Handler;

use super::CacheUploader;
use super::messages::Realised;
use super::metrics;
use super::queue::Offered;
use crate::actors::builds::{Built, RootGuard};
use crate::actors::core::Ctx;
use crate::model::StorePath;
use crate::nix::{Origin, PushTo};

impl Handler<Realised> for CacheUploader {
    type Result = ();

    fn handle(&mut self, Realised(built): Realised, ctx: &mut Ctx<Self>) {
        let Built { realised, root: guard, derivation, .. } = built;
        let (path, mut origin) = (realised.root, realised.origin);
        if realised.in_cache && matches!(self.to, PushTo::Store { .. }) {
            // As if it had been sent. Of the derivation nobody has said that it is there.
            self.sent.insert(path.clone());
            origin = Origin::Present;
        }
        self.offer(path, origin, guard, ctx);
        // What was never evaluated was fetched, and has none here.
        if let Some((derivation, guard)) = derivation.filter(|_| self.derivations) {
            self.offer(derivation, origin, guard, ctx);
        }
    }
}

impl CacheUploader {
    /// `guard` holds the path.
    fn offer(
        &mut self,
        path: StorePath,
        origin: Origin,
        guard: Arc<RootGuard>,
        ctx: &mut Ctx<Self>,
    ) {
        match origin {
            Origin::Present if self.sent.contains(&path) => return,
            Origin::Present | Origin::Substituted | Origin::Built => {}
        }
        match self.queue.offer(&path, self.clock.now()) {
            Offered::Known => {}
            Offered::New => self.keep(path, guard, ctx),
            Offered::Full => {
                tracing::warn!(%path, "not uploaded: the queue is full");
                metrics::UPLOADS_DROPPED.inc();
            }
        }
    }

    /// Makes the root and the record, while the guard holds the path.
    fn keep(&mut self, path: StorePath, guard: Arc<RootGuard>, ctx: &mut Ctx<Self>) {
        let (root, now) = (path.clone(), self.clock.now());
        let kept = self.disk.ask(move |files| {
            let kept = files.keep(&root, now);
            drop(guard);
            kept
        });
        ctx.effect(kept, move |this, kept, ctx| {
            match kept {
                Ok(Some(record)) => this.queue.kept(record, this.clock.now()),
                Ok(None) => {
                    tracing::info!(%path, "not uploaded: it is not in the store any more");
                    this.queue.remove(&path);
                }
                Err(error) => {
                    tracing::warn!(%path, %error, "not uploaded: it can't be put into the queue");
                    metrics::UPLOADS_DROPPED.inc();
                    this.queue.remove(&path);
                }
            }
            this.go_on(ctx);
        });
    }
}
