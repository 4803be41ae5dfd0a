//! The guard, as the driver starts it: `nix-csi guard … -- PROGRAM`. What ends with what, and what a
//! program in its jail can see and do. The jail's tests need root.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod confined;
mod daemons;
mod ends;
mod init;
mod kernel;
mod powers;
mod privileges;
mod program;
mod settings;
