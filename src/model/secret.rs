//! What a pod's namespace gives for one request: the Secret that its volume's `nodePublishSecretRef` names
//! (CSI 1.12, `NodePublishVolumeRequest.secrets`).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::SERVICE_ACCOUNT_TOKENS;

/// Keys that a Secret may have.
pub const ACCESS_TOKENS: &str = "access-tokens";
pub const NETRC: &str = "netrc";
/// Bytes of each.
const MAX: usize = 32 << 10;

/// Cheap to clone. Says nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    access_tokens: String,
    netrc: String,
}

/// Never with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    #[error(
        "secrets (nodePublishSecretRef) have the key {key:?}: give the pod a Secret with {ACCESS_TOKENS}, {NETRC} or both, and nothing else"
    )]
    UnknownKey { key: String },
    #[error("secrets (nodePublishSecretRef): {key} has {len} bytes, more than the {MAX} allowed")]
    TooLong { key: &'static str, len: usize },
    #[error("{SERVICE_ACCOUNT_TOKENS} (tokenRequests of the CSIDriver): {reason}")]
    Tokens { reason: &'static str },
}

impl Secret {
    /// `Ok(None)`: there is nothing in it.
    pub fn parse(mut secrets: HashMap<String, String>) -> Result<Option<Self>, InvalidSecret> {
        let mut take = |key: &'static str| {
            let value = secrets.remove(key).unwrap_or_default();
            if value.len() > MAX {
                return Err(InvalidSecret::TooLong { key, len: value.len() });
            }
            Ok(value)
        };
        let (access_tokens, netrc) = (take(ACCESS_TOKENS)?, take(NETRC)?);
        if let Some(key) = secrets.keys().min() {
            return Err(InvalidSecret::UnknownKey { key: key.chars().take(80).collect() });
        }
        if access_tokens.trim().is_empty() && netrc.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(Self(Arc::new(Inner { access_tokens, netrc }))))
    }

    /// `HOST=TOKEN …`, as Nix's setting.
    pub fn access_tokens(&self) -> &str {
        &self.0.access_tokens
    }

    /// As curl reads it; may be empty.
    pub fn netrc(&self) -> &str {
        &self.0.netrc
    }

    /// The same for the same secret.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.0.access_tokens, &self.0.netrc] {
            digest.update(part.len().to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<Secret>, InvalidSecret> {
        Secret::parse(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn what_is_known_is_taken_and_nothing_shown() {
        let both = parse(&[(ACCESS_TOKENS, "a.b=hunter2"), (NETRC, "machine a")]).unwrap().unwrap();
        assert_eq!((both.access_tokens(), both.netrc()), ("a.b=hunter2", "machine a"));
        assert_eq!(format!("{both:?}"), "Secret(***)");
        let other =
            parse(&[(ACCESS_TOKENS, "a.b=hunter2m"), (NETRC, "achine a")]).unwrap().unwrap();
        assert_ne!(both.digest(), other.digest());
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[(NETRC, " \n")]), Ok(None));
        let error = parse(&[(NETRC, "x"), ("token", "hunter2")]).unwrap_err().to_string();
        assert!(error.contains("the key \"token\"") && !error.contains("hunter2"), "{error}");
        let error = parse(&[(NETRC, &"x".repeat(MAX + 1))]).unwrap_err().to_string();
        assert!(error.contains("netrc has 32769 bytes"), "{error}");
    }
}
