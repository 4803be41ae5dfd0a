//! How a program ended. Pure.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What helps who is refused a system call.
pub(super) const REFUSES_NONE: &str = "--privileges all refuses none";
/// strsignal(3), in what Nix and shells say of a program that SIGSYS has ended.
pub(super) const BAD_CALL: &str = "Bad system call";
/// The same of one that SIGXFSZ has ended, and strerror(3) of one that ignores it.
pub(super) const LARGE_FILE: [&str; 2] = ["File size limit exceeded", "File too large"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    pub(super) fn is_ok(self) -> bool {
        self == Self::Code(0)
    }

    /// SIGSYS, or what a shell makes of one of its programs'.
    pub(super) fn is_of_refused_call(self) -> bool {
        [Self::Signal(libc::SIGSYS), Self::Code(128 + libc::SIGSYS)].contains(&self)
    }

    /// SIGXFSZ, likewise: a file that is larger than it may be.
    pub(super) fn is_of_large_file(self) -> bool {
        [Self::Signal(libc::SIGXFSZ), Self::Code(128 + libc::SIGXFSZ)].contains(&self)
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = || Self::Signal(status.signal().unwrap_or_default());
        status.code().map_or_else(signal, Self::Code)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            refused if refused.is_of_refused_call() => {
                write!(f, "it made a system call that is refused to it (SIGSYS): {REFUSES_NONE}")
            }
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(_) => f.write_str("it was killed; the node may be short of memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_call_is_told_from_a_lack_of_memory() {
        let words = |status: i32| Exit::from(ExitStatus::from_raw(status)).to_string();
        assert_eq!(words(3 << 8), "exit code 3");
        assert_eq!(words(libc::SIGKILL), "it was killed; the node may be short of memory");
        for refused in [libc::SIGSYS, (128 + libc::SIGSYS) << 8] {
            let text = words(refused);
            assert!(text.contains("system call") && text.contains("--privileges all"), "{text}");
        }
    }
}
