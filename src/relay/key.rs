//! Whose session it is, by the key that sshd let in; and how many each may have, so that one key that is
//! stolen, or used by a program that has gone wrong, does not take all.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use crate::lock::lock;
use crate::read::{SMALL, text_at_most};

/// The SHA-256 of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct KeyId(pub(super) [u8; 32]);

impl KeyId {
    /// Of all sessions of which sshd does not say whose they are.
    const UNKNOWN: Self = Self([0; 32]);

    /// Takes what sshd says of this session: sshd_config(5), ExposeAuthInfo. sshd that is killed would leave
    /// the file, which is this session's own.
    pub(super) fn taken_from(file: &OsStr) -> Self {
        let said = text_at_most(Path::new(file), SMALL).unwrap_or_default();
        let key = Self::parse(&said);
        if key.is_some() {
            drop(fs::remove_file(file));
        }
        key.unwrap_or(Self::UNKNOWN)
    }

    /// `publickey <type> <base64>`, a method a line.
    fn parse(said: &str) -> Option<Self> {
        let mut keys = said.lines().filter_map(|line| line.strip_prefix("publickey "));
        let blob = STANDARD.decode(keys.next()?.split(' ').nth(1)?).ok()?;
        Some(Self(Sha256::digest(blob).into()))
    }
}

/// A session is of the key that was let in first, whatever else is said.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let said = crate::fuzz::text(data);
    let Some(key) = KeyId::parse(&said) else { return };
    assert_ne!(key, KeyId::UNKNOWN);
    let line = said.lines().find(|line| line.starts_with("publickey ")).expect("its line");
    let field = line.split(' ').nth(2).expect("its field");
    for same in [
        format!("publickey x {field}"),
        format!("password\n{line} comment\npublickey ssh-ed25519 AAAA\n"),
    ] {
        assert_eq!(KeyId::parse(&same), Some(key));
    }
    // No other text is its base64: one key has one share.
    let blob = STANDARD.decode(field).expect("base64");
    assert_eq!(STANDARD.encode(&blob), field);
    let shown = key.to_string();
    assert!(shown.len() == 50 && shown.starts_with("SHA256:"), "{shown:?}");
}

/// As `ssh-keygen -l` and sshd's log have it.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::UNKNOWN {
            return f.write_str("unknown");
        }
        write!(f, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

/// What each key has of the sessions.
pub(super) struct Shares {
    most: usize,
    held: Mutex<HashMap<KeyId, Held>>,
}

#[derive(Default)]
struct Held {
    sessions: usize,
    /// That it has all it may.
    is_told: bool,
}

/// One session's; given back when it is dropped.
pub(super) struct Share<'s> {
    shares: &'s Shares,
    key: KeyId,
}

/// The key has all it may; `is_new`: since a moment ago.
#[derive(Debug)]
pub(super) struct Spent {
    pub(super) is_new: bool,
}

impl Shares {
    pub(super) fn new(most: usize) -> Self {
        Self { most, held: Mutex::default() }
    }

    pub(super) fn take(&self, key: KeyId) -> Result<Share<'_>, Spent> {
        let mut all = self.lock();
        let held = all.entry(key).or_default();
        if held.sessions >= self.most {
            return Err(Spent { is_new: !std::mem::replace(&mut held.is_told, true) });
        }
        held.sessions += 1;
        Ok(Share { shares: self, key })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyId, Held>> {
        lock(&self.held)
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut all = self.shares.lock();
        let Some(held) = all.get_mut(&self.key) else { return };
        held.sessions -= 1;
        // Not with each one that ends while others are refused.
        held.is_told &= held.sessions * 10 > self.shares.most * 9;
        if held.sessions == 0 {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIE7V/FEoDBlpAh7737V2Qq63mp66O9YXLdADB3EVD2hg";

    #[test]
    fn a_key_is_what_sshd_says() {
        let said = format!("publickey ssh-ed25519 {KEY}\n");
        let key = KeyId::parse(&said).unwrap();
        assert_eq!(key.to_string(), "SHA256:U+bKjaA7z69QO0LPpYs4fWTUqGzKi9yVULYPpemap9I");
        for none in ["", "password\n", "publickey ssh-ed25519\n", "publickey ssh-ed25519 ?\n"] {
            assert_eq!(KeyId::parse(none), None);
        }
        assert_eq!(KeyId::taken_from(OsStr::new("")), KeyId::UNKNOWN);
    }

    #[test]
    fn each_key_has_its_own_and_nothing_is_kept_of_who_has_none() {
        let shares = Shares::new(2);
        let [a, b] = [KeyId([1; 32]), KeyId([2; 32])];
        let first = shares.take(a).unwrap();
        let second = shares.take(a).unwrap();
        assert!(shares.take(a).is_err_and(|spent| spent.is_new));
        assert!(shares.take(a).is_err_and(|spent| !spent.is_new));
        let other = shares.take(b).unwrap();
        drop(first);
        let again = shares.take(a).unwrap();
        assert!(shares.take(a).is_err_and(|spent| spent.is_new));
        drop((second, again, other));
        assert!(shares.lock().is_empty());
    }
}
