//! Kubernetes' side: what the kubelet adds to CSI calls, and the API server. The only room that
//! names `kube`.
//!
//! [`Api`] is what a node's actors see, [`Builders`] what the cache's do; `real` and `builders` speak
//! to an API server, the `fake` ones are in-memory stand-ins with faults on demand.

use std::fmt;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;

mod builders;
mod check;
mod client;
mod error;
mod event;
pub mod fake;
pub mod fake_builders;
mod kubelet_dir;
mod pod;
mod pod_info;
mod real;
mod watch;

pub use builders::{
    ANNOTATIONS, BUILDER_LABELS, BuilderChange, BuilderPod, Builders, RealBuilders,
};
pub use check::{CanaryNodes, CheckOptions, ClusterCheck, Row, Verdict, canary_expression};
pub use error::ApiError;
pub use event::{Event, EventName, Kind};
pub use kubelet_dir::KubeletVolume;
pub use pod::{Pod, PodChange};
pub use pod_info::split_attributes;
pub use real::RealApi;
pub use watch::Change;

/// The API server as seen from one node. The futures end when they are dropped, and no later than
/// [`CALL_LIMIT`].
pub trait Api: fmt::Debug + Send + Sync + 'static {
    /// The node's pods: all of them first, then every change. Never ends; after a lost connection it
    /// begins anew by itself.
    fn watch_pods(&self) -> BoxStream<'static, PodChange>;

    /// One ConfigMap: what it has first, then every change. Never ends, as the watch of the pods.
    fn watch_config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxStream<'static, Change<ConfigData>>;

    /// A pod as the API server has it at this moment; `None`: there is none of that name.
    fn find_pod(
        &self,
        namespace: &str,
        name: &str,
    ) -> BoxFuture<'static, Result<Option<Pod>, ApiError>>;

    /// Posts a new Event; its name is for [`Api::repeat_event`].
    fn post_event(&self, event: Event) -> BoxFuture<'static, Result<EventName, ApiError>>;

    /// Says that an Event has happened `count` times now. An Event that has expired is `Gone`.
    fn repeat_event(
        &self,
        event: EventName,
        count: i32,
    ) -> BoxFuture<'static, Result<(), ApiError>>;

    /// Whether the kubelet lists the driver in the node's CSINode object.
    fn is_driver_listed(&self) -> BoxFuture<'static, Result<bool, ApiError>>;

    /// Takes the taint with this key from the node; `Ok(false)`: it had none.
    fn remove_taint(&self, key: &str) -> BoxFuture<'static, Result<bool, ApiError>>;
}

/// A ConfigMap's texts by their keys.
pub type ConfigData = std::collections::BTreeMap<String, String>;

/// The longest that one call may take, watches aside. An API server that is slower than that is
/// as good as down, and nobody waits for it with a mount.
pub const CALL_LIMIT: Duration = Duration::from_secs(10);
