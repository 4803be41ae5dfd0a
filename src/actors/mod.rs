//! The actors. `core` is the framework; each other module is one actor or one family.
//!
//! Asks point one way: grpc, pods → volumes → volume → builds and views → the nix and mount rooms.
//! The other way go only events, so no ring of asks can wait for itself.

pub mod builds;
pub mod cache;
mod child;
pub mod core;
pub mod events;
pub mod gc;
pub mod keeper;
pub(crate) mod metrics;
pub mod node;
pub mod pods;
pub mod policy;
pub mod reconciler;
pub mod registrar;
pub mod registry;
mod resolve;
mod took;
pub mod uploads;
pub mod views;
pub mod volume;
