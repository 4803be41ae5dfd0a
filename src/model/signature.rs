//! Who vouches for a store path: Nix's ed25519 signatures, as caches give them. Pure.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::StorePath;

/// Bytes of an ed25519 public key (RFC 8032).
const KEY_LEN: usize = 32;
/// Nix's own alphabet of 32 digits: no e, o, t, u.
const DIGITS: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// A key whose signatures count, `name:` and base64, as `nix key convert-secret-to-public` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SigningKey {
    name: String,
    bytes: [u8; KEY_LEN],
}

/// What a store says of a valid path, and what signatures are made over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    pub path: StorePath,
    /// Of its NAR serialisation.
    pub sha256: [u8; 32],
    /// Bytes of the same.
    pub nar_size: u64,
    pub references: Vec<StorePath>,
    /// Each `name:` and base64. Anybody's: the database keeps them unchecked.
    pub signatures: Vec<String>,
}

impl SigningKey {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WHY: &str =
            "it is no public key: write NAME:BASE64, as the cache's operator publishes it";
        let (name, key) = text.split_once(':').ok_or(WHY)?;
        let is_name = |c: char| c.is_ascii_graphic() && c != ':';
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(WHY);
        }
        let bytes = STANDARD.decode(key).ok().and_then(|key| key.try_into().ok()).ok_or(
            "it has no 32 bytes of base64 after its name: a secret key has 64, and is nobody's to see",
        )?;
        Ok(Self { name: name.to_owned(), bytes })
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Vouched {
    /// Whether one of the keys has signed it.
    pub fn is_signed_by(&self, keys: &[SigningKey]) -> bool {
        let text = self.fingerprint();
        self.signatures.iter().any(|signature| {
            let Some((name, signature)) = signature.split_once(':') else { return false };
            let Ok(signature) = STANDARD.decode(signature) else { return false };
            keys.iter().filter(|key| key.name == name).any(|key| {
                let key = UnparsedPublicKey::new(&ED25519, &key.bytes);
                key.verify(text.as_bytes(), &signature).is_ok()
            })
        })
    }

    /// What is signed: Nix's `ValidPathInfo::fingerprint`.
    pub fn fingerprint(&self) -> String {
        let mut references: Vec<_> = self.references.iter().map(ToString::to_string).collect();
        references.sort_unstable();
        let (hash, references) = (base32(&self.sha256), references.join(","));
        format!("1;{};sha256:{hash};{};{references}", self.path, self.nar_size)
    }
}

/// Nix's base 32: the last digit first, five bits each from the end of the bytes.
fn base32(bytes: &[u8]) -> String {
    let digits = (bytes.len() * 8).div_ceil(5);
    let digit = |n: usize| {
        let (byte, shift) = (n * 5 / 8, n * 5 % 8);
        let low = u16::from(bytes[byte]);
        let high = bytes.get(byte + 1).copied().map_or(0, u16::from);
        char::from(DIGITS[usize::from(((high << 8 | low) >> shift) & 31)])
    };
    (0..digits).rev().map(digit).collect()
}

impl fmt::Display for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, STANDARD.encode(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "lab-1:BScooZ+RgFvAeelIbcngF0Zd/bTPRrhNAjtGs4NvLYs=";

    fn path(text: &str) -> StorePath {
        StorePath::parse(text).unwrap()
    }

    /// What `nix store sign` of Nix 2.8 made of a path that refers to itself and to another.
    fn signed() -> Vouched {
        let itself = path("/nix/store/fv7pivkxazvm3c7am07rmv4850pgzj12-b");
        let sha256 = STANDARD.decode("Cf1pWdSfW8piMmSZVXI4/szIm3doVkGLxzLAmk1089k=").unwrap();
        let signature = "rWH7P45T8MXmPtdLdYZXwM4QQpc8Jsq7Lsvqu8vROgLTY2wcwXISVJTMtUCPBYIyTSEXLvOphim4aKuZyrWzCA==";
        Vouched {
            path: itself.clone(),
            sha256: sha256.try_into().unwrap(),
            nar_size: 208,
            references: vec![path("/nix/store/y9xsr1hg3kf7xbva2dgqpagj6x6555a3-a"), itself],
            signatures: vec!["other-1:AAAA".to_owned(), format!("lab-1:{signature}")],
        }
    }

    #[test]
    fn a_signature_of_nix_counts_for_what_it_was_made_for() {
        let keys = [SigningKey::parse(KEY).unwrap()];
        assert_eq!(keys[0].to_string(), KEY);
        let good = signed();
        assert!(good.is_signed_by(&keys));
        assert!(!good.is_signed_by(&[]));
        let mut others = vec![signed(); 5];
        others[0].path = path("/nix/store/fv7pivkxazvm3c7am07rmv4850pgzj13-b");
        others[1].sha256[31] ^= 1;
        others[2].nar_size += 1;
        others[3].references.pop();
        // Of another's name, in this one's.
        others[4].signatures = vec![good.signatures[1].replace("lab-1", "lab-2")];
        for other in &others {
            assert!(!other.is_signed_by(&keys), "{other:?}");
        }
        let zero = format!("lab-1:{}", STANDARD.encode([0; KEY_LEN]));
        assert!(!good.is_signed_by(&[SigningKey::parse(&zero).unwrap()]));
    }

    #[test]
    fn keys_are_told_from_other_things() {
        for bad in [
            "",
            "lab-1",
            ":BScooZ+RgFvAeelIbcngF0Zd/bTPRrhNAjtGs4NvLYs=",
            "lab-1:BScooZ",
            "lab 1:BScooZ+RgFvAeelIbcngF0Zd/bTPRrhNAjtGs4NvLYs=",
            &format!("lab-1:{}==", "A".repeat(86)),
        ] {
            SigningKey::parse(bad).unwrap_err();
        }
    }

    #[test]
    fn hashes_are_written_as_nix_writes_them() {
        // nix-hash --type sha256 --flat --base32 of an x.
        let x = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
        let expected = "10a83a91g1r50bdw8g4hn47m7j7m6angpabwc80l9c16nx11cw9d";
        assert_eq!(base32(&hex::decode(x).unwrap()), expected);
    }
}
