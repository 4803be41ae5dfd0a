//! A test's own machine: a mount and pid namespace with a throw-away `/nix`, in which real nodes run
//! against a real Nix; and a client of theirs.
//!
//! A test that can't have one (no root, no Nix) says so on standard error and counts as skipped.

#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]

mod cache;
mod client;
mod crowd;
mod flake;
mod gate;
mod group;
mod installed;
mod kubelet;
mod leftovers;
mod machine;
mod network;
mod role;
mod store;
mod usage;

pub use cache::{Cache, Mode, Served};
pub use client::{Node, Volume, attrs, eventually, free_address};
pub use crowd::{assert_all_ok, code, publish_all, unpublish_all, volumes};
pub use gate::{Gate, until};
pub use group::Group;
pub use installed::installed;
pub use kubelet::{Call, Kubelet, Pace};
pub use leftovers::{NO_IDLE, assert_nothing_left, leftovers, names, target_mounts};
pub use machine::{Lab, http_get, node_binary, signal_inside, unique, wait_for};
pub use network::Network;
pub use role::CacheRole;
pub use store::{assert_shows, closure_of, valid};
pub use usage::{Peak, Usage};

/// Says that a test is skipped, past the harness's capture. CI has all that it takes, so there a
/// skip is a failure.
#[expect(clippy::explicit_write, reason = "the harness captures eprintln")]
pub fn skipped(test: &str, reason: &str) {
    use std::io::Write;
    writeln!(std::io::stderr(), "SKIPPED {test}: {reason}").unwrap();
    assert!(std::env::var_os("CI").is_none(), "{test} is skipped in CI: {reason}");
}

/// What could be made, or a visible skip.
#[macro_export]
macro_rules! or_skip {
    ($made:expr) => {
        match $made {
            Ok(made) => made,
            Err(reason) => {
                $crate::lab::skipped(module_path!(), &reason);
                return;
            }
        }
    };
}

/// The machine, or a visible skip.
#[macro_export]
macro_rules! lab {
    () => {
        $crate::or_skip!($crate::lab::Lab::new())
    };
}
