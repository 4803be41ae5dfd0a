//! Limits of a process and of all it starts: setrlimit(2).

use rustix::process::{Resource, Rlimit, setrlimit};

use super::{Limits, SetupError, setup};

pub(super) fn set(limits: &Limits) -> Result<(), SetupError> {
    let all = [
        (Resource::Data, limits.data, "memory"),
        (Resource::Nproc, limits.processes, "processes"),
        (Resource::Fsize, limits.file, "files"),
    ];
    for (resource, most, what) in all {
        if let Some(most) = most {
            at_most(resource, most, what)?;
        }
    }
    Ok(())
}

/// Neither of the program nor of the guard, which ends by the same signal: both have seen the settings.
/// With 0 a program that `core_pattern` pipes to would still get one; 1 is the kernel's own way to say
/// never, see `do_coredump`.
pub(super) fn no_cores() -> Result<(), SetupError> {
    at_most(Resource::Core, 1, "core dumps")
}

fn at_most(resource: Resource, most: u64, what: &'static str) -> Result<(), SetupError> {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(resource, limit).map_err(setup("limit", what))
}
