//! [`Api`] in memory, for tests: pods that come and go at a word, Events that are kept, and faults.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::{Api, ApiError, Change, ConfigData, Event, EventName, Pod, PodChange};

use crate::lock::lock;

/// An API server of one node. Clones are the same one.
#[derive(Debug, Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<PodChange>,
    configs: broadcast::Sender<Change<ConfigData>>,
}

#[derive(Debug, Default)]
struct State {
    pods: Vec<Pod>,
    posted: Vec<(Event, i32)>,
    taints: Vec<String>,
    config: Option<ConfigData>,
    hides_config: Option<String>,
    is_driver_listed: bool,
    fault: Option<Fault>,
    calls: usize,
}

/// What every call meets.
#[derive(Debug, Clone)]
pub enum Fault {
    Fails(ApiError),
    /// It is never answered.
    Hangs,
}

impl Default for FakeApi {
    fn default() -> Self {
        let (changes, configs) = (broadcast::channel(1024).0, broadcast::channel(1024).0);
        Self { state: Arc::default(), changes, configs }
    }
}

impl FakeApi {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Creates a pod, or changes the one with its uid.
    pub fn apply(&self, pod: Pod) {
        let mut state = self.state();
        state.pods.retain(|known| known.uid != pod.uid);
        state.pods.push(pod.clone());
        drop(self.changes.send(PodChange::Applied(pod)));
    }

    /// Deletes the pod; a watch hears of it, as long as it is not broken.
    pub fn delete(&self, uid: &str) {
        let mut state = self.state();
        if let Some(at) = state.pods.iter().position(|pod| pod.uid == uid) {
            drop(self.changes.send(PodChange::Deleted(state.pods.remove(at))));
        }
    }

    /// As `delete`, but without a word to anybody.
    pub fn delete_unheard(&self, uid: &str) {
        self.state().pods.retain(|pod| pod.uid != uid);
    }

    /// Breaks the watches; they begin anew with all pods.
    pub fn break_watches(&self) {
        let state = self.state();
        drop(self.changes.send(PodChange::Lost("broken by the test".to_owned())));
        drop(self.changes.send(PodChange::Reset(state.pods.clone())));
    }

    /// The API server is out of the watches' reach, until `break_watches`.
    pub fn lose_watches(&self) {
        drop(self.changes.send(PodChange::Lost("lost by the test".to_owned())));
    }

    /// Nobody learns of the ConfigMap but by a change of it.
    pub fn hide_config(&self, reason: &str) {
        self.state().hides_config = Some(reason.to_owned());
    }

    /// What the one ConfigMap that there may be has from now on; `None`: it is deleted.
    pub fn set_config(&self, data: Option<ConfigData>) {
        let mut state = self.state();
        let change = match (data.clone(), state.config.take()) {
            (Some(data), _) => Change::Applied(data),
            (None, known) => Change::Deleted(known.unwrap_or_default()),
        };
        state.config = data;
        drop(self.configs.send(change));
    }

    /// What all calls meet from now on; watches go on.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    pub fn taint(&self, key: &str) {
        self.state().taints.push(key.to_owned());
    }

    pub fn taints(&self) -> Vec<String> {
        self.state().taints.clone()
    }

    pub fn list_driver(&self, listed: bool) {
        self.state().is_driver_listed = listed;
    }

    /// Events and how often each happened, in the order in which they were posted.
    pub fn posted(&self) -> Vec<(Event, i32)> {
        self.state().posted.clone()
    }

    /// Calls so far, failed ones too; watches are none.
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T, ApiError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ApiError>> {
        let this = self.clone();
        async move {
            let fault = {
                let mut state = this.state();
                state.calls += 1;
                state.fault.clone()
            };
            match fault {
                Some(Fault::Hangs) => futures::future::pending().await,
                Some(Fault::Fails(error)) => Err(error),
                None => work(&mut this.state()),
            }
        }
        .boxed()
    }
}

impl Api for FakeApi {
    fn watch_pods(&self) -> BoxStream<'static, PodChange> {
        let state = self.state();
        let changes = BroadcastStream::new(self.changes.subscribe());
        let first = PodChange::Reset(state.pods.clone());
        let changes = changes.filter_map(|change| futures::future::ready(change.ok()));
        futures::stream::iter([first]).chain(changes).boxed()
    }

    fn watch_config_map(&self, _: &str, _: &str) -> BoxStream<'static, Change<ConfigData>> {
        let state = self.state();
        let changes = BroadcastStream::new(self.configs.subscribe());
        let first = match &state.hides_config {
            Some(reason) => Change::Lost(reason.clone()),
            None => Change::Reset(state.config.iter().cloned().collect()),
        };
        let changes = changes.filter_map(|change| futures::future::ready(change.ok()));
        futures::stream::iter([first]).chain(changes).boxed()
    }

    fn find_pod(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'static, Result<Option<Pod>, ApiError>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        self.call(move |state| {
            let is_it = |pod: &&Pod| pod.namespace == namespace && pod.name == name;
            Ok(state.pods.iter().find(is_it).cloned())
        })
    }

    fn post_event(&self, event: Event) -> BoxFuture<'static, Result<EventName, ApiError>> {
        self.call(move |state| {
            let name = state.posted.len().to_string();
            let namespace = event.pod.namespace.clone();
            state.posted.push((event, 1));
            Ok(EventName { namespace, name })
        })
    }

    fn repeat_event(
        &self,
        event: EventName,
        count: i32,
    ) -> BoxFuture<'static, Result<(), ApiError>> {
        self.call(move |state| {
            let at = event.name.parse::<usize>().ok();
            let posted = at.and_then(|at| state.posted.get_mut(at));
            let gone = || ApiError::Gone { what: "update an Event", reason: event.name };
            posted.ok_or_else(gone)?.1 = count;
            Ok(())
        })
    }

    fn is_driver_listed(&self) -> BoxFuture<'static, Result<bool, ApiError>> {
        self.call(|state| Ok(state.is_driver_listed))
    }

    fn remove_taint(&self, key: &str) -> BoxFuture<'static, Result<bool, ApiError>> {
        let key = key.to_owned();
        self.call(move |state| {
            let before = state.taints.len();
            state.taints.retain(|taint| *taint != key);
            Ok(state.taints.len() < before)
        })
    }
}
