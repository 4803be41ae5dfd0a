//! What is said to the uploader.

use std::time::Duration;

use actix::Message;

use super::UploadsReport;
use crate::actors::builds::Built;
use crate::actors::core::ActorGone;
use crate::model::StorePath;

/// A closure is in the store; its roots keep it there until the uploader has some of its own.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Realised(pub Built);

/// What waits, what is sent and what was given up.
#[derive(Message)]
#[rtype(result = "UploadsReport")]
pub struct ListUploads;

/// Tries these now, or all that were given up; how many there were.
#[derive(Message)]
#[rtype(result = "usize")]
pub struct RetryUploads(pub Vec<StorePath>);

/// Starts no more pushes; those under way may go on for so long. Answered when there are none.
#[derive(Message)]
#[rtype(result = "Result<(), ActorGone>")]
pub struct Stop(pub Duration);
