//! Public keys of ssh, of hosts and of users, as in a `.pub` file (sshd(8), AUTHORIZED_KEYS FILE
//! FORMAT). Options before the type are refused: what a session may do is not the key's to say.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Types that are not broken and need no device.
const TYPES: [&str; 5] =
    ["ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"];

/// A public key without its comment: `ssh-ed25519 AAAA…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPublicKey {
    #[error(
        "not one public key: a .pub file has one line with a type, a key in base64 and a comment"
    )]
    NotOneLine,
    #[error("{kind:?} is no type of a key: known are {}", TYPES.join(", "))]
    UnknownType { kind: String },
    #[error("the {kind} key is no base64 of a key of that type")]
    Damaged { kind: String },
}

impl PublicKey {
    /// Parses the text of a `.pub` file.
    pub fn parse(text: &str) -> Result<Self, InvalidPublicKey> {
        let line = text.strip_suffix('\n').unwrap_or(text);
        if line.chars().any(char::is_control) {
            return Err(InvalidPublicKey::NotOneLine);
        }
        let mut words = line.split(' ');
        let (Some(kind), Some(key)) = (words.next(), words.next()) else {
            return Err(InvalidPublicKey::NotOneLine);
        };
        if !TYPES.contains(&kind) {
            // A private key's first word, say: nothing of a key gets into a message.
            let kind = kind.chars().take(20).collect();
            return Err(InvalidPublicKey::UnknownType { kind });
        }
        if !STANDARD.decode(key).is_ok_and(|blob| is_of(&blob, kind)) {
            return Err(InvalidPublicKey::Damaged { kind: kind.to_owned() });
        }
        Ok(Self(format!("{kind} {key}")))
    }

    /// Base64 of the whole line. Nix decodes it and writes `<host> <decoded>` into a known_hosts file
    /// of its own.
    pub fn encoded(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a known_hosts file as sshd(8) has it: markers, hosts and keys. An error names the line.
pub fn check_known_hosts(text: &str) -> Result<(), String> {
    for (n, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
        let mut words = line.split_ascii_whitespace().peekable();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        words.next_if(|word| matches!(*word, "@cert-authority" | "@revoked"));
        let (Some(_), Some(kind), Some(key)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("line {n}: a host, a key's type and a key are to be there"));
        };
        // Of a device, or of a type yet to come: ssh passes over what it does not know.
        match PublicKey::parse(&format!("{kind} {key}")) {
            Err(InvalidPublicKey::UnknownType { .. }) if STANDARD.decode(key).is_ok() => {}
            read => drop(read.map_err(|why| format!("line {n}: {why}"))?),
        }
    }
    Ok(())
}

/// RFC 4253, 6.6: a key begins with its type as a string, and more follows.
fn is_of(blob: &[u8], kind: &str) -> bool {
    let Some((len, rest)) = blob.split_first_chunk::<4>() else {
        return false;
    };
    let is_len = usize::try_from(u32::from_be_bytes(*len)).is_ok_and(|len| len == kind.len());
    is_len && rest.len() > kind.len() && rest.starts_with(kind.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIE7V/FEoDBlpAh7737V2Qq63mp66O9YXLdADB3EVD2hg";

    #[test]
    fn known_hosts_are_hosts_and_keys() {
        for good in [
            String::new(),
            format!("# the cache\n\nnix-cache,10.0.0.1 ssh-ed25519 {KEY}\n"),
            format!("@cert-authority *.example ssh-ed25519 {KEY} of a CA"),
            format!("nix-cache\tssh-ed25519  {KEY}\r\n  # indented\nother sk-ssh-ed25519@x {KEY}"),
        ] {
            assert_eq!(check_known_hosts(&good), Ok(()), "{good}");
        }
        for bad in [
            "nix-cache\n".to_owned(),
            format!("ssh-ed25519 {KEY}\n"),
            format!("nix-cache ssh-ed25519 {}", &KEY[..20]),
            "@nobody nix-cache ssh-ed25519 x".to_owned(),
        ] {
            let why = check_known_hosts(&bad).unwrap_err();
            assert!(why.starts_with("line 1: "), "{why}");
        }
    }

    #[test]
    fn a_pub_file_is_read_without_its_comment() {
        for text in [
            format!("ssh-ed25519 {KEY}"),
            format!("ssh-ed25519 {KEY}\n"),
            format!("ssh-ed25519 {KEY} root@builder of ours\n"),
        ] {
            let key = PublicKey::parse(&text).unwrap();
            let decoded = STANDARD.decode(key.encoded()).unwrap();
            assert_eq!(String::from_utf8(decoded).unwrap(), format!("ssh-ed25519 {KEY}"));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        use InvalidPublicKey::{Damaged, NotOneLine, UnknownType};
        let of = |text: &str| PublicKey::parse(text).unwrap_err();
        for text in ["", "ssh-ed25519", "a b\nc d", "ssh-ed25519\tAAAA", "a b\r\n", "a b\n\n"] {
            assert_eq!(of(text), NotOneLine, "{text:?}");
        }
        for text in [" ssh-ed25519 AAAA", "* ssh-ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----"] {
            assert!(matches!(of(text), UnknownType { .. }), "{text:?}");
        }
        for text in [
            "ssh-ed25519  AAAA".to_owned(),
            "ssh-ed25519 AAAA".to_owned(),
            format!("ssh-rsa {KEY}"),
            format!("ssh-ed25519 {}", &KEY[..20]),
            format!("ssh-ed25519 {KEY}="),
            format!("ssh-ed25519 {KEY};x"),
        ] {
            assert!(matches!(of(&text), Damaged { .. }), "{text:?}");
        }
    }
}
