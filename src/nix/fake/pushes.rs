//! Uploads of the stand-in.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{FakeNix, Gate};
use crate::model::StorePath;
use crate::nix::PushError;

/// What a cache says to these roots; `None`: it takes them.
type Refusal = Arc<dyn Fn(&[StorePath]) -> Option<PushError> + Send + Sync>;

/// What pushes meet, and what there was of them.
#[derive(Default)]
pub(super) struct Pushes {
    refusal: Option<Refusal>,
    gate: Option<watch::Receiver<bool>>,
    /// Roots of each push, in the order of their beginnings.
    begun: Vec<Vec<StorePath>>,
    /// Roots that have arrived.
    arrived: Vec<StorePath>,
}

impl FakeNix {
    /// From now on the cache answers a push so, at its beginning.
    pub fn answer_pushes(
        &self,
        refusal: impl Fn(&[StorePath]) -> Option<PushError> + Send + Sync + 'static,
    ) {
        self.state().pushes.refusal = Some(Arc::new(refusal));
    }

    /// From now on the cache takes everything.
    pub fn take_pushes(&self) {
        self.state().pushes.refusal = None;
    }

    /// Pushes wait until the gate is released.
    pub fn hold_pushes(&self) -> Gate {
        let (sender, receiver) = watch::channel(false);
        self.state().pushes.gate = Some(receiver);
        Gate(sender)
    }

    /// Roots of each push that was begun.
    pub fn pushes(&self) -> Vec<Vec<StorePath>> {
        self.state().pushes.begun.clone()
    }

    /// Roots that have arrived in the cache, in their order.
    pub fn pushed(&self) -> Vec<StorePath> {
        self.state().pushes.arrived.clone()
    }

    pub(super) fn push_now(
        &self,
        paths: Vec<StorePath>,
    ) -> BoxFuture<'static, Result<(), PushError>> {
        let (refusal, gate) = {
            let pushes = &mut self.state().pushes;
            pushes.begun.push(paths.clone());
            (pushes.refusal.clone(), pushes.gate.clone())
        };
        let refused = refusal.and_then(|refusal| refusal(&paths));
        let nix = self.clone();
        async move {
            if let Some(mut gate) = gate {
                // A dropped gate lets everybody through.
                let _ = gate.wait_for(|open| *open).await;
            }
            if let Some(path) = paths.iter().find(|path| !nix.is_valid(path)) {
                return Err(PushError::Gone { path: path.clone() });
            }
            if let Some(error) = refused {
                return Err(error);
            }
            nix.state().pushes.arrived.extend(paths);
            Ok(())
        }
        .boxed()
    }
}
