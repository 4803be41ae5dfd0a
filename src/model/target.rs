//! The target path of a publish: absolute, normal, and not yet trusted to be free of symlinks;
//! `mount::paths` opens it.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kernel's PATH_MAX, with its terminating NUL.
const PATH_MAX: usize = 4096;
const MAX_LEN: usize = PATH_MAX - 1;

/// An absolute path without `.`, `..`, empty components or NUL, and with at least one component.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetPath(Arc<Path>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTarget {
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error("{field} has {len} bytes, more than the {MAX_LEN} that the kernel allows")]
    TooLong { field: &'static str, len: usize },
    #[error("{field} {value:?} is not absolute")]
    Relative { field: &'static str, value: String },
    #[error("{field} {value:?} has '.', '..', an empty component or a NUL in it")]
    NotNormal { field: &'static str, value: String },
}

impl TargetPath {
    /// `field` is the request's field name, for the error text.
    pub fn parse(field: &'static str, value: &str) -> Result<Self, InvalidTarget> {
        if value.is_empty() {
            return Err(InvalidTarget::Missing { field });
        }
        if value.len() > MAX_LEN {
            return Err(InvalidTarget::TooLong { field, len: value.len() });
        }
        if !value.starts_with('/') {
            return Err(InvalidTarget::Relative { field, value: clip(value) });
        }
        let trimmed = value.strip_suffix('/').unwrap_or(value);
        let normal = trimmed.len() > 1
            && trimmed[1..].split('/').all(|c| !matches!(c, "" | "." | "..") && !c.contains('\0'));
        if normal {
            Ok(Self(Path::new(trimmed).into()))
        } else {
            Err(InvalidTarget::NotNormal { field, value: clip(value) })
        }
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }

    pub fn parent(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new("/"))
    }

    /// The last component, which the driver creates and removes.
    pub fn name(&self) -> &OsStr {
        match self.0.components().next_back() {
            Some(Component::Normal(name)) => name,
            _ => OsStr::new(""), // unreachable: parse asks for a normal last component
        }
    }
}

/// Error texts name the value, but a hostile one must not fill an Event.
fn clip(value: &str) -> String {
    value.chars().take(200).collect()
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl fmt::Debug for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl TryFrom<String> for TargetPath {
    type Error = InvalidTarget;
    fn try_from(value: String) -> Result<Self, Self::Error> {
        Self::parse("target_path", &value)
    }
}

impl From<TargetPath> for String {
    fn from(t: TargetPath) -> Self {
        // Parsed from a str, so it is UTF-8.
        t.0.to_string_lossy().into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_normal_absolute_paths_only() {
        let t = TargetPath::parse("target_path", "/var/lib/kubelet/pods/u/mount/").unwrap();
        assert_eq!(t.as_path(), Path::new("/var/lib/kubelet/pods/u/mount"));
        assert_eq!(t.name(), "mount");
        assert_eq!(t.parent(), Path::new("/var/lib/kubelet/pods/u"));
        for bad in ["/", "//", "/a/../b", "/a/./b", "/a//b", "/..", "/a\0b"] {
            assert!(
                matches!(TargetPath::parse("f", bad), Err(InvalidTarget::NotNormal { .. })),
                "{bad:?}"
            );
        }
        assert!(matches!(TargetPath::parse("f", "a/b"), Err(InvalidTarget::Relative { .. })));
        assert!(matches!(TargetPath::parse("f", ""), Err(InvalidTarget::Missing { field: "f" })));
    }

    /// Found by fuzzing: 4 KiB of control characters are 20 KiB of message.
    #[test]
    fn an_error_does_not_repeat_all_of_a_long_value() {
        for bad in [format!("/{}/..", "\u{14}".repeat(4000)), "\u{14}".repeat(4000)] {
            let message = TargetPath::parse("f", &bad).unwrap_err().to_string();
            assert!(message.len() < 1500, "{} bytes", message.len());
        }
    }
}
