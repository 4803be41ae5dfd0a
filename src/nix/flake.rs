//! Flake references: which are locked already, and what a mutable one is locked to. Pure.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::read::short;

use super::{NixError, RealiseError};

/// What a mutable flake reference names at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The locked reference, with the attribute of the mutable one.
    pub reference: String,
    /// A digest of everything the flake depends on, which a flake without a lock file does not fix.
    pub inputs: String,
    /// The commit, or else the hash of the source.
    pub revision: Option<String>,
}

/// The parts of `nix flake metadata --json` that are the same from Nix 2.8 on.
#[derive(Deserialize)]
struct Metadata {
    url: String,
    locked: Locked,
    #[serde(default)]
    locks: serde_json::Value,
}

#[derive(Deserialize)]
struct Locked {
    rev: Option<String>,
    #[serde(rename = "narHash")]
    nar_hash: Option<String>,
}

impl Lock {
    pub(super) fn parse(stdout: &[u8], attribute: Option<&str>) -> Result<Self, RealiseError> {
        let metadata: Metadata = serde_json::from_slice(stdout).map_err(|err| {
            RealiseError::Store(NixError::Command {
                what: "nix flake metadata".to_owned(),
                detail: format!("it printed what is not understood: {}", short(&err)),
            })
        })?;
        let attribute = attribute.map(|a| format!("#{a}")).unwrap_or_default();
        let digest = Sha256::digest(metadata.locks.to_string());
        Ok(Self {
            reference: metadata.url + &attribute,
            inputs: hex::encode(&digest[..16]),
            revision: metadata.locked.rev.or(metadata.locked.nar_hash),
        })
    }
}

/// The revision or hash that a reference is locked to by itself, such as `github:o/r/<commit>`,
/// `…?rev=<commit>` or `…?narHash=…`. `None`: what it names may change.
pub fn locked_revision(reference: &str) -> Option<&str> {
    let flake = reference.split('#').next().unwrap_or_default();
    let (path, query) = flake.split_once('?').unwrap_or((flake, ""));
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let is_commit = |text: &&str| text.len() == 40 && text.bytes().all(|c| c.is_ascii_hexdigit());
    let starts = |kinds: &[&str]| kinds.iter().any(|kind| path.starts_with(kind));
    let forge = starts(&["github:", "gitlab:", "sourcehut:"]);
    // Elsewhere, such as in an archive's URL, it is a parameter like any other, and Nix checks nothing.
    let has_revisions = forge || starts(&["git:", "git+", "hg+"]);
    let in_query = parameter("rev").filter(is_commit).filter(|_| has_revisions);
    let in_path = || path.split('/').nth(2).filter(|_| forge).filter(is_commit);
    let by_hash = || parameter("narHash").filter(|hash| !hash.is_empty());
    in_query.or_else(in_path).or_else(by_hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    #[test]
    fn locked_references_are_told_from_mutable_ones() {
        let locked = [
            (format!("github:o/r/{COMMIT}#x"), COMMIT),
            (format!("gitlab:o/r/{COMMIT}"), COMMIT),
            (format!("git+https://h/r?ref=main&rev={COMMIT}#x"), COMMIT),
            ("path:/nix/store/x-source?narHash=sha256-a%3D#y".to_owned(), "sha256-a%3D"),
            ("https://h/x.tar.gz?narHash=sha256-b".to_owned(), "sha256-b"),
        ];
        for (reference, revision) in locked {
            assert_eq!(locked_revision(&reference), Some(revision), "{reference}");
        }
        let mutable = [
            "github:nixos/nixpkgs/nixos-25.05#hello".to_owned(),
            "nixpkgs#hello".to_owned(),
            format!("https://h/{COMMIT}"),
            format!("git+https://h/r?ref={COMMIT}"),
            format!("github:o/r#{COMMIT}"),
            "git+https://h/r?rev=main".to_owned(),
            format!("https://h/x.tar.gz?rev={COMMIT}"),
            format!("path:/d?rev={COMMIT}"),
            format!("github:o/{COMMIT}"),
            "https://h/x.tar.gz?narHash=".to_owned(),
        ];
        for reference in mutable {
            assert_eq!(locked_revision(&reference), None, "{reference}");
        }
    }

    #[test]
    fn metadata_becomes_a_locked_reference() {
        let json = format!(
            r#"{{"url":"git+https://h/r?rev={COMMIT}","locked":{{"rev":"{COMMIT}","narHash":"h"}},"locks":{{"version":7}}}}"#
        );
        let lock = Lock::parse(json.as_bytes(), Some("x")).unwrap();
        assert_eq!(lock.reference, format!("git+https://h/r?rev={COMMIT}#x"));
        assert_eq!(lock.revision.as_deref(), Some(COMMIT));
        let other = json.replace('7', "8");
        assert_ne!(Lock::parse(other.as_bytes(), None).unwrap().inputs, lock.inputs);
        assert!(Lock::parse(b"{}", None).is_err());
    }
}
