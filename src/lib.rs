//! Mounts Nix closures into pods: a CSI node driver built as supervised actors.
//! `ARCHITECTURE.md` is the map.

pub mod crash;
pub mod model;
pub mod mount;
pub mod nix;
