//! Events on pods: what `kubectl describe pod` shows of a volume.
//!
//! - [`EventRecorder`]
//!   - owns: who waits for which volume (`waiting`), and what is still to be posted (`outbox`);
//!   - hears: [`VolumeNews`] from volumes; its own tick;
//!   - asks: builds, how far they are; the API server, one call at a time;
//!   - on restart: forgets. A volume that is still awaited is heard of again at the kubelet's next
//!     call that resolves it; an Event that was not posted is lost.
//! - `note`: the texts.
//!
//! Nobody waits for it: news are told, and what can't be posted is counted and dropped.

mod actor;
mod note;
mod outbox;
mod waiting;

pub use actor::EventRecorder;
pub(super) use actor::REASONS;

use actix::Message;

use super::volume::Request;
use crate::k8s::KubeletVolume;
use crate::model::{PodInfo, Source, StorePath, VolumeId};
use crate::nix::Origin;

/// A pod's volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub id: VolumeId,
    pub pod: PodInfo,
    /// As the pod calls it.
    pub name: String,
}

impl Subject {
    /// `None`: nobody has said whose it is.
    pub fn of(id: &VolumeId, request: &Request) -> Option<Self> {
        let pod = request.spec.pod.clone().filter(|pod| !pod.uid.is_empty())?;
        let name = KubeletVolume::at(&request.target).map_or_else(|| id.to_string(), |v| v.name);
        Some(Self { id: id.clone(), pod, name })
    }
}

/// What has happened to a volume.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct VolumeNews {
    pub subject: Subject,
    pub news: News,
}

#[derive(Debug, Clone)]
pub enum News {
    /// Its closure is looked for, fetched or built.
    Began,
    Mounted(Facts),
    /// `same` is equal for the same failure, however often and after however long.
    Failed {
        note: String,
        same: String,
    },
    /// Nobody waits for it any more.
    Gone,
}

/// About a mounted volume.
#[derive(Debug, Clone)]
pub struct Facts {
    pub source: Source,
    pub root: StorePath,
    pub paths: usize,
    /// Bytes of the closure's NAR serialisations.
    pub bytes: u64,
    /// From the first call until it was mounted.
    pub seconds: f64,
    pub origin: Origin,
}
