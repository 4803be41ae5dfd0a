//! A test's own machine: a mount and pid namespace with a throw-away `/nix`, in which real nodes run
//! against a real Nix; and a client of theirs.
//!
//! A test that can't have one (no root, no Nix) says so on standard error and counts as skipped.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod client;
mod machine;

#[allow(unused_imports, reason = "each test binary uses a part of it")]
pub use client::{Node, Volume, attrs, eventually};
pub use machine::Lab;

/// The machine, or a visible skip.
#[macro_export]
macro_rules! lab {
    () => {
        match $crate::lab::Lab::new() {
            Ok(lab) => lab,
            Err(reason) => {
                eprintln!("SKIPPED {}: {reason}", module_path!());
                return;
            }
        }
    };
}
