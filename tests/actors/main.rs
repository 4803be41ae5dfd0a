//! The node's actors on stand-ins for Nix and for mounts, on paused time: what they do with faults,
//! races and clocks that real parts don't show on demand. `tests/volume` runs the real ones.

#![expect(clippy::unwrap_used, reason = "tests")]

mod builds;
mod events;
mod fetch_from;
mod gc;
mod half_mounted;
mod keeper;
mod limits;
mod pods;
mod policy;
mod registrar;
mod registry;
mod uploads;
mod views;
mod volumes;
mod world;
