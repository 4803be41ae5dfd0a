//! What is said to the registry.

use actix::Message;

use super::BuilderStatus;
use crate::model::Address;

/// A build ended because its builder could not be reached, or went away.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuilderFailed {
    pub address: Address,
}

/// A builder took a build to its end, whatever became of the build.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuilderWorked {
    pub address: Address,
}

/// All builders that are known, for people.
#[derive(Message)]
#[rtype(result = "Vec<BuilderStatus>")]
pub struct ListBuilders;
