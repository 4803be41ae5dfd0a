//! The driver's registration with the kubelet, without a sidecar.
//!
//! - [`KubeletRegistrar`]
//!   - owns: the socket in the kubelet's plugins_registry, by a [`Door`]; the startup taint, as long
//!     as it is to be removed;
//!   - hears: `Heard`, what the kubelet says through the socket; `Stop`; its own tick;
//!   - ends with `Stop`, which takes the socket away: the kubelet forgets the driver within a second.
//!   - on restart: opens the socket anew.
//! - `plan`: when to open and close, pure.

mod actor;
pub(super) mod metrics;
mod plan;

#[cfg(test)]
mod tests;

use futures::future::BoxFuture;

pub use actor::{KubeletRegistrar, RegistrarConfig, RegistrarHandle};

/// What the kubelet says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It has found the socket.
    Asked,
    Registered,
    /// With its reason.
    Refused(String),
}

/// Where the kubelet finds the driver.
pub trait Doorway: Send + Sync + 'static {
    /// Puts the socket there, in place of a stale one, and hands on what the kubelet says.
    fn open(
        &self,
        hear: Box<dyn Fn(Notice) + Send + Sync>,
    ) -> BoxFuture<'static, Result<Box<dyn Door>, String>>;
}

/// The socket; dropping it takes it away.
pub trait Door: Send {
    /// Whether the kubelet still finds this very socket.
    fn is_there(&self) -> bool;
}
