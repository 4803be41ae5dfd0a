//! What is said to the registry.

use std::collections::HashMap;

use actix::Message;

use super::BuilderStatus;
use crate::model::{Address, Announcement};

/// Which builders answered, of those that were asked.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BuildersAsked(pub HashMap<Address, Option<Announcement>>);

/// All builders that are known, for people.
#[derive(Message)]
#[rtype(result = "Vec<BuilderStatus>")]
pub struct ListBuilders;
