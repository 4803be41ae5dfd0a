//! Views that nobody uses, and roots of no view.

use std::time::Duration;

use actix::{Handler, Message, ResponseFuture};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::actor::Views;
use crate::actors::core::{ActorGone, Ctx, answer_all, deferred};
use crate::actors::gc::holders::SweepRoots;
use crate::actors::gc::report::Leaked;
use crate::actors::volume::ViewError;
use crate::mount::{MountError, ViewId};

/// Removes the views that nobody has used for so long; how many there were.
#[derive(Message)]
#[rtype(result = "Result<usize, ActorGone>")]
pub struct EvictIdle(pub Duration);

impl Views {
    /// The end of all of it; each that is removed may still be adopted until then.
    pub(super) fn evict(
        &mut self,
        keep: Duration,
        ctx: &mut Ctx<Self>,
    ) -> ResponseFuture<Result<usize, ActorGone>> {
        let now = Instant::now();
        let mut idle = Vec::new();
        for (id, ready) in &mut self.ready {
            if self.leases.users(id) > 0 {
                ready.idle_since = None;
                continue;
            }
            let unused = now - *ready.idle_since.get_or_insert(now);
            if ready.removing.is_none() && unused >= keep {
                ready.removing = Some(vec![]);
                // When its root is gone, this is what its closure is kept by.
                self.config.used.note_idle(&ready.view.root, unused);
                idle.push(id.clone());
            }
        }
        // From here on the closures' next volumes get views of their own.
        self.current.retain(|_, current| !idle.contains(current));
        let (reply, answer) = deferred::<Self, _, _>();
        // Dropped with the last removal's end; none waits for another.
        let (gone, mut all) = mpsc::unbounded_channel::<()>();
        for id in idle {
            let (removal, gone) = (self.hands.clone().remove(id.clone()), gone.clone());
            ctx.effect(removal, move |this, removed, _| {
                if this.evicted(&id, &removed) {
                    let _ = gone.send(()); // nobody may count
                }
            });
        }
        drop(gone);
        let count = async move {
            let mut count = 0;
            while all.recv().await.is_some() {
                count += 1;
            }
            count
        };
        ctx.effect(count, |_, count, _| reply.send(Ok(count)));
        answer
    }

    /// Whether it is gone.
    fn evicted(&mut self, id: &ViewId, removed: &Result<(), ViewError>) -> bool {
        let Some(ready) = self.ready.get_mut(id) else {
            return false;
        };
        let adopters = ready.removing.take().unwrap_or_default();
        ready.idle_since = None;
        let Err(error) = removed else {
            tracing::info!(view = id.as_str(), "idle view removed");
            self.ready.remove(id);
            answer_all(adopters, &Ok(None));
            return true;
        };
        if let ViewError::Mount(MountError::ViewInUse { .. }) = error {
            tracing::debug!(view = id.as_str(), "an idle view is still shown by a mount");
        } else {
            tracing::warn!(view = id.as_str(), %error, "can't remove an idle view");
        }
        for adopter in adopters {
            adopter.send(Ok(Some(self.leases.grant(&ready.view, true))));
        }
        false
    }
}

impl Handler<EvictIdle> for Views {
    type Result = ResponseFuture<Result<usize, ActorGone>>;

    fn handle(&mut self, EvictIdle(idle): EvictIdle, ctx: &mut Ctx<Self>) -> Self::Result {
        self.evict(idle, ctx)
    }
}

impl Handler<SweepRoots> for Views {
    type Result = ResponseFuture<Result<Vec<Leaked>, ActorGone>>;

    /// The roots are listed first: what is not known afterwards never will be, since no view gets the name
    /// of an earlier one.
    fn handle(&mut self, _: SweepRoots, ctx: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        ctx.effect(self.hands.clone().without_directory(), |this, found, ctx| {
            let is_ours = |id: &ViewId| this.ready.contains_key(id) || this.unfinished.contains(id);
            let leaked: Vec<_> = found.into_iter().filter(|id| !is_ours(id)).collect();
            ctx.effect(this.hands.clone().remove_roots(leaked), |_, leaked, _| {
                reply.send(Ok(leaked));
            });
        });
        answer
    }
}
