//! What a person does at a terminal, as a client of the node's sockets or of a cluster's API server, or on a
//! store; one file per command.

mod bootstrap;
mod builds;
mod canary;
mod check;
mod debug;
mod gc;
mod mount;
mod policy;
mod prefetch;
mod status;
mod target;
mod unmount;
mod uploads;

use std::fmt::Display;

pub use bootstrap::bootstrap;
pub use builds::builds;
pub use canary::canary;
pub use check::check;
pub use debug::debug;
pub use gc::gc;
pub use mount::mount;
pub use policy::policy;
pub use prefetch::prefetch;
pub use status::status;
pub use unmount::unmount;
pub use uploads::uploads;

/// What a person reads when a command fails.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// A failed call's message; the code is for programs.
fn message(status: &crate::grpc::client::Status) -> Failure {
    use crate::grpc::client::Code;
    if status.code() == Code::Unimplemented {
        let why = "it is a cache, or another version of nix-csi";
        return Failure(format!("what answers here does not know this call: {why}"));
    }
    Failure(status.message().to_owned())
}

/// `1.2 MB`; decimal, as disks and networks count.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let digits = usize::from(unit != "B" && value < 10.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_decimal_and_short() {
        let all = [0, 999, 1200, 45_000_000, 2_000_000_000, 3_400_000_000_000].map(super::size);
        assert_eq!(all, ["0 B", "999 B", "1.2 kB", "45 MB", "2.0 GB", "3.4 TB"]);
    }
}
