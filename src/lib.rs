//! Mounts Nix closures into pods: a CSI node driver built as supervised actors.
//! `ARCHITECTURE.md` is the map.

pub mod actors;
pub mod app;
pub mod bundle;
pub mod cli;
pub mod config;
pub mod crash;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod grpc;
pub mod health;
pub mod http;
pub mod jail;
pub mod k8s;
pub mod lock;
pub mod metrics;
pub mod model;
pub mod mount;
pub mod nix;
pub mod read;
pub mod relay;
pub mod telemetry;
pub mod trace;
