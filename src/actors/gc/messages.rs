//! What is said to the scheduler.

use std::time::Duration;

use actix::{Addr, Message};

use super::GcScheduler;
use super::holders::Holders;
use crate::actors::core::{ActorGone, ask};

/// The actors that hold paths; before it nothing is collected.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Meet(pub Holders);

/// Something ran out of space: some room should be made.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Full;

#[derive(Message)]
#[rtype(result = "GcStatus")]
pub struct GetGcStatus;

/// For people.
#[derive(Debug, Clone, Default)]
pub struct GcStatus {
    /// The step under way, and for how long.
    pub step: Option<(&'static str, Duration)>,
    /// How long ago the last collection succeeded, and what it came to.
    pub last: Option<(Duration, String)>,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
}

/// The scheduler as other rooms see it.
#[derive(Clone)]
pub struct GcHandle(pub(crate) Addr<GcScheduler>);

impl GcHandle {
    pub async fn status(&self) -> Result<GcStatus, ActorGone> {
        ask(&self.0, GetGcStatus).await
    }
}
