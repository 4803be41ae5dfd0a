//! The driver in a real cluster: API server, kubelet, containerd, the project's manifests and image.
//! `scripts/e2e.sh` makes the cluster, says in the environment where it is, and takes it down; tests run
//! one after the other, since they stop and kill what they share.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod answerer;
mod builds;
mod cache;
mod check;
mod cluster;
mod crowd;
mod driver;
mod events;
mod examples;
mod exchange;
mod from_nix;
mod get_started;
mod install;
mod kubelet;
mod leftovers;
mod many;
mod own_cache;
mod pods;
mod policy;
mod privileges;
mod programs;
mod registry;
mod rotation;
mod secrets;
mod services;
mod startup;
mod times;
mod users;
mod web;
