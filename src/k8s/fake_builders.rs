//! [`Builders`] in memory, for tests: pods that come and go at a word, and watches that break.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::{BuilderChange, BuilderPod, Builders};

use crate::lock::lock;

/// A namespace of builders. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct FakeBuilders(Arc<Mutex<State>>);

/// A ready one, whose address tells it from 65,535 others.
pub fn pod(n: u32) -> BuilderPod {
    BuilderPod {
        uid: format!("uid-{n}"),
        namespace: "nix".to_owned(),
        name: format!("node-{n:05}"),
        is_ready: true,
        ip: format!("10.0.{}.{}", n / 256, n % 256).parse().ok(),
        hostname: None,
        subdomain: None,
        node: None,
        annotations: [].into(),
    }
}

#[derive(Debug, Default)]
struct State {
    pods: Vec<BuilderPod>,
    watches: Vec<mpsc::UnboundedSender<Told>>,
    begun: usize,
    is_out_of_reach: bool,
}

#[derive(Debug, Clone)]
enum Told {
    Change(BuilderChange),
    /// Whoever polls the watch panics.
    Panic,
}

impl State {
    fn tell(&mut self, change: &BuilderChange) {
        if !self.is_out_of_reach {
            self.watches.retain(|watch| watch.send(Told::Change(change.clone())).is_ok());
        }
    }
}

impl FakeBuilders {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Creates a pod, or changes the one with its uid.
    pub fn apply(&self, pod: BuilderPod) {
        let mut state = self.state();
        match state.pods.iter_mut().find(|known| known.uid == pod.uid) {
            Some(known) => *known = pod.clone(),
            None => state.pods.push(pod.clone()),
        }
        state.tell(&BuilderChange::Applied(pod));
    }

    pub fn delete(&self, uid: &str) {
        let mut state = self.state();
        if let Some(at) = state.pods.iter().position(|pod| pod.uid == uid) {
            let pod = state.pods.remove(at);
            state.tell(&BuilderChange::Deleted(pod));
        }
    }

    /// The watches break, and begin anew with all pods.
    pub fn relist(&self) {
        let mut state = self.state();
        state.is_out_of_reach = false;
        let pods = state.pods.clone();
        state.tell(&BuilderChange::Lost("broken by the test".to_owned()));
        state.tell(&BuilderChange::Reset(pods));
    }

    /// The API server is out of everybody's reach, until `relist`.
    pub fn lose(&self) {
        let mut state = self.state();
        state.tell(&BuilderChange::Lost("lost by the test".to_owned()));
        state.is_out_of_reach = true;
    }

    /// All watches end, which a real one never does.
    pub fn end(&self) {
        self.state().watches.clear();
    }

    /// Whoever reads a watch panics over it.
    pub fn panic(&self) {
        for watch in self.state().watches.drain(..) {
            drop(watch.send(Told::Panic));
        }
    }

    /// Watches begun so far.
    pub fn watches(&self) -> usize {
        self.state().begun
    }
}

impl Builders for FakeBuilders {
    fn watch_builders(&self) -> BoxStream<'static, BuilderChange> {
        let mut state = self.state();
        let (watch, told) = mpsc::unbounded_channel();
        let first = if state.is_out_of_reach {
            BuilderChange::Lost("lost by the test".to_owned())
        } else {
            BuilderChange::Reset(state.pods.clone())
        };
        drop(watch.send(Told::Change(first)));
        state.watches.push(watch);
        state.begun += 1;
        let changes = UnboundedReceiverStream::new(told).map(|told| match told {
            Told::Change(change) => change,
            Told::Panic => panic!("the test says so"),
        });
        changes.boxed()
    }
}
