//! The mount room over the real kernel and over its stand-in. What needs root runs in a mount
//! namespace of its own; without root it is skipped, and says so.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod bounded;
mod compare;
mod contract;
mod crashes;
mod hostile;
mod presentation;
mod restart;
mod speed;
mod users;
mod world;
