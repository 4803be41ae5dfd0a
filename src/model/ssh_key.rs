//! Public keys of ssh, one a line (sshd(8), AUTHORIZED_KEYS FILE FORMAT; RFC 4253, 6.6).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Types that are neither broken nor need a device.
const TYPES: [&str; 5] =
    ["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];
/// Bytes; an RSA key of 16384 bits has fewer.
const MAX: usize = 4096;

/// A public key without its comment and without options.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    kind: &'static str,
    base64: String,
}

impl PublicKey {
    /// `ssh-ed25519 AAAA… comment`. Options before the type are refused: what a session may do is not
    /// the key's to say.
    pub fn parse(line: &str) -> Result<Self, String> {
        let mut words = line.split_ascii_whitespace();
        let (kind, base64) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let Some(kind) = TYPES.into_iter().find(|known| *known == kind) else {
            return Err(format!("it does not begin with one of {}", TYPES.join(", ")));
        };
        if base64.len() > MAX {
            return Err(format!("it has more than {MAX} characters"));
        }
        let bytes = STANDARD.decode(base64).map_err(|e| format!("it is not base64: {e}"))?;
        // The type once more, with its length before it.
        let inner = bytes.split_at_checked(4).and_then(|(length, rest)| {
            let length = u32::from_be_bytes(length.try_into().ok()?);
            rest.get(..usize::try_from(length).ok()?)
        });
        if inner != Some(kind.as_bytes()) {
            return Err(format!("what follows {kind} is a key of another type"));
        }
        Ok(Self { kind, base64: base64.to_owned() })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.base64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMZ3PzUgQvNUBcQAMzvpdYYDXKHoxGWYSqK/dLtTN1fh";

    #[test]
    fn a_key_is_its_type_and_its_bytes() {
        assert_eq!(PublicKey::parse(KEY).unwrap().to_string(), KEY);
        assert_eq!(PublicKey::parse(&format!("{KEY} a@b c\r")).unwrap().to_string(), KEY);
        let error = |line: &str| PublicKey::parse(line).unwrap_err();
        assert!(error("").starts_with("it does not begin with one of ssh-ed25519"));
        assert!(error(&format!("command=\"sh\" {KEY}")).starts_with("it does not begin"));
        assert!(error("ssh-ed25519 !!").starts_with("it is not base64"));
        assert!(error(&KEY.replace("ssh-ed25519", "ssh-rsa")).ends_with("of another type"));
        assert!(error("ssh-ed25519").ends_with("of another type"));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_one_line_of_two_words(line in "(ssh-ed25519|ssh-rsa)?[ -~\\n\\r\\t]{0,90}") {
            if let Ok(key) = PublicKey::parse(&line) {
                prop_assert_eq!(key.to_string().split_whitespace().count(), 2);
            }
        }
    }
}
