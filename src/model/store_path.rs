//! Nix store paths: `/nix/store/<32 base-32 characters>-<name>`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The logical store directory; it is part of every store path's hash and never changes.
pub const STORE_DIR: &str = "/nix/store";

const HASH_LEN: usize = 32;
/// Nix's own limit for the name part (`StorePath::MaxPathLen`).
const MAX_NAME_LEN: usize = 211;

/// A store path, held as its base name `<hash>-<name>`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorePath(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStorePath {
    #[error("{value:?} is not a store path: it does not start with {STORE_DIR}/")]
    NotInStore { value: String },
    #[error(
        "{value:?} names something below a store path: use {STORE_DIR}/{base} and reach the rest through the mount"
    )]
    Below { value: String, base: String },
    #[error(
        "{value:?} is not a store path: after {STORE_DIR}/ come 32 characters of Nix's base 32, a dash and a name of letters, digits and +-._?="
    )]
    Malformed { value: String },
}

impl StorePath {
    /// Parses `/nix/store/<hash>-<name>`.
    pub fn parse(value: &str) -> Result<Self, InvalidStorePath> {
        let Some(rest) = value.strip_prefix(STORE_DIR).and_then(|v| v.strip_prefix('/')) else {
            return Err(InvalidStorePath::NotInStore { value: clip(value) });
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if let Some((base, _)) = rest.split_once('/') {
            return match Self::from_base_name(base) {
                Ok(base) => Err(InvalidStorePath::Below {
                    value: clip(value),
                    base: base.base_name().to_owned(),
                }),
                Err(_) => Err(InvalidStorePath::Malformed { value: clip(value) }),
            };
        }
        Self::from_base_name(rest)
    }

    /// Parses `<hash>-<name>`.
    pub fn from_base_name(base: &str) -> Result<Self, InvalidStorePath> {
        let malformed = || InvalidStorePath::Malformed { value: clip(base) };
        let (hash, rest) = base.as_bytes().split_at_checked(HASH_LEN).ok_or_else(malformed)?;
        let name = rest.strip_prefix(b"-").ok_or_else(malformed)?;
        let name_ok = (1..=MAX_NAME_LEN).contains(&name.len())
            && name.iter().all(|c| c.is_ascii_alphanumeric() || b"+-._?=".contains(c))
            && name != b"."
            && name != b"..";
        if hash.iter().all(|c| is_base32(*c)) && name_ok {
            Ok(Self(base.into()))
        } else {
            Err(malformed())
        }
    }

    /// `<hash>-<name>`, a safe single path component.
    pub fn base_name(&self) -> &str {
        &self.0
    }

    /// The 32-character hash part, unique in a store.
    pub fn hash(&self) -> &str {
        &self.0[..HASH_LEN]
    }

    /// The part after the hash, such as `hello-2.12`.
    pub fn name(&self) -> &str {
        &self.0[HASH_LEN + 1..]
    }

    /// Nix tells by the name.
    pub fn is_derivation(&self) -> bool {
        self.name().strip_suffix(".drv").is_some()
    }
}

/// Nix's base-32 alphabet leaves out e, o, t and u.
fn is_base32(c: u8) -> bool {
    matches!(c, b'0'..=b'9' | b'a'..=b'd' | b'f'..=b'n' | b'p'..=b's' | b'v'..=b'z')
}

/// Error texts name the value, but a hostile one must not fill a log line.
fn clip(value: &str) -> String {
    value.chars().take(120).collect()
}

impl fmt::Display for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE_DIR}/{}", self.0)
    }
}

impl fmt::Debug for StorePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for StorePath {
    type Error = InvalidStorePath;
    fn try_from(value: String) -> Result<Self, Self::Error> {
        Self::parse(&value)
    }
}

impl From<StorePath> for String {
    fn from(path: StorePath) -> Self {
        path.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello-2.12";

    #[test]
    fn parses_and_prints() {
        let p = StorePath::parse(GOOD).unwrap();
        assert_eq!(p.to_string(), GOOD);
        assert_eq!(p.hash(), "0123456789abcdfghijklmnpqrsvwxyz");
        assert_eq!(p.name(), "hello-2.12");
        assert_eq!(StorePath::parse(&format!("{GOOD}/")).unwrap(), p);
    }

    #[test]
    fn refuses_with_the_reason() {
        let below = StorePath::parse(&format!("{GOOD}/bin/hello")).unwrap_err();
        assert!(matches!(below, InvalidStorePath::Below { ref base, .. } if GOOD.ends_with(base)));
        for (value, not_in_store) in [
            ("hello", true),
            ("/etc/passwd", true),
            ("/nix/store", true),
            ("/nix/storefoo", true),
            ("/nix/store/", false),
            ("/nix/store/..", false),
            ("/nix/store/../../etc", false),
            ("/nix/store/0123456789abcdefghijklmnpqrsvwxy-x", false), // e is not in the alphabet
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-", false),
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-a b", false),
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-..", false),
            ("/nix/store/0123456789abcdfghijklmnpqrsvwxy\u{e9}-x", false),
        ] {
            let err = StorePath::parse(value).unwrap_err();
            assert_eq!(matches!(err, InvalidStorePath::NotInStore { .. }), not_in_store, "{value}");
        }
    }
}
