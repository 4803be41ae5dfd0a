//! What is said to and by the builds actor.

use actix::Message;
use tokio::sync::broadcast;

use super::{Built, Failure};
use crate::model::{Source, Tenant, Viewer, VolumeId};
use crate::nix::Progress;

pub type RealiseResult = Result<Built, Failure>;

/// Realises a source, or joins the realisation of the same that is under way for such a viewer.
#[derive(Message)]
#[rtype(result = "RealiseResult")]
pub struct Realise {
    pub source: Source,
    pub volume: VolumeId,
    pub viewer: Viewer,
}

/// The volume no longer waits. What nobody waits for is cancelled after the grace.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Abandon(pub VolumeId);

/// Whether the actor answers.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Ping;

/// What is under way, for people and progress messages.
#[derive(Message)]
#[rtype(result = "Vec<BuildSummary>")]
pub struct ListBuilds;

/// The realisation that this volume waits for.
#[derive(Message)]
#[rtype(result = "Option<BuildSummary>")]
pub struct BuildOf(pub VolumeId);

/// Every change from now on; what is under way already shows at the next tick.
#[derive(Message)]
#[rtype(result = "broadcast::Receiver<BuildEvent>")]
pub struct Subscribe;

/// What subscribers hear.
#[derive(Debug, Clone)]
pub enum BuildEvent {
    /// A realisation that has begun, or whose progress has changed.
    Changed(BuildSummary),
    /// `error` is what the volumes' users read.
    Ended { build: BuildSummary, error: Option<String> },
}

#[derive(Debug, Clone, PartialEq)]
pub struct BuildSummary {
    pub number: u64,
    pub source: Source,
    pub volumes: Vec<VolumeId>,
    pub tenant: Tenant,
    pub seconds: f64,
    pub progress: Progress,
}

/// A build actor's last word.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ended {
    pub(super) number: u64,
    pub(super) result: RealiseResult,
}
