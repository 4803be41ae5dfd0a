//! The CSI volume id, validated so that it can be a file name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// CSI 1.12, "Size Limits": string fields hold at most 128 bytes.
const MAX_LEN: usize = 128;

/// A volume id: 1 to 128 characters of `[A-Za-z0-9._:-]`, not starting with a dot.
/// The kubelet's are `csi-` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeId(Arc<str>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVolumeId {
    #[error("volume_id is missing")]
    Missing,
    #[error("volume_id has {len} bytes, more than the {MAX_LEN} that CSI allows")]
    TooLong { len: usize },
    #[error(
        "volume_id {value:?} has {found:?} in it: allowed are letters, digits, '-', '_', ':' and '.', and no leading '.'"
    )]
    BadCharacter { value: String, found: char },
}

impl VolumeId {
    pub fn parse(value: &str) -> Result<Self, InvalidVolumeId> {
        if value.is_empty() {
            return Err(InvalidVolumeId::Missing);
        }
        if value.len() > MAX_LEN {
            return Err(InvalidVolumeId::TooLong { len: value.len() });
        }
        let bad = value.char_indices().find(|&(i, c)| {
            !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':') || (c == '.' && i > 0))
        });
        match bad {
            Some((_, found)) => {
                Err(InvalidVolumeId::BadCharacter { value: value.to_owned(), found })
            }
            None => Ok(Self(value.into())),
        }
    }

    /// In whose name a node realises what it keeps by itself; the kubelet has no such ids.
    pub fn of_keeper(number: u64) -> Self {
        Self(format!("keep-{number}").into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VolumeId {
    type Error = InvalidVolumeId;
    fn try_from(value: String) -> Result<Self, Self::Error> {
        Self::parse(&value)
    }
}

impl From<VolumeId> for String {
    fn from(id: VolumeId) -> Self {
        id.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_valid_id_is_a_safe_file_name() {
        for good in ["csi-0a1b", "vol_1", "a.b:c", &"x".repeat(128)] {
            assert_eq!(VolumeId::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(VolumeId::parse("").unwrap_err(), InvalidVolumeId::Missing);
        assert_eq!(
            VolumeId::parse(&"x".repeat(129)).unwrap_err(),
            InvalidVolumeId::TooLong { len: 129 }
        );
        for (bad, found) in
            [("..", '.'), (".hidden", '.'), ("a/b", '/'), ("a\0", '\0'), ("a b", ' '), ("é", 'é')]
        {
            assert_eq!(
                VolumeId::parse(bad).unwrap_err(),
                InvalidVolumeId::BadCharacter { value: bad.to_owned(), found }
            );
        }
    }
}
