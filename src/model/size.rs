//! The attribute `size`: how much a writable volume may hold, as a Kubernetes quantity.

use serde::{Deserialize, Serialize};

/// What is said about the volume, not about its source.
pub const SIZE: &str = "size";
/// Bytes: the tables of more take a second to make.
const MAX: u64 = 8 << 40;
/// Of the value in a message; longer ones are no quantities either.
const MAX_TEXT: usize = 32;

/// Bytes of the file system that takes a writable volume's writes, its own tables included: from 16Mi
/// to 8Ti.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VolumeSize(u64);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSize {
    #[error(
        "volumeAttributes.size {value:?} is no quantity: give it bytes, such as 500Mi, 2Gi or 1G, or leave it out for no limit"
    )]
    NotAQuantity { value: String },
    #[error("volumeAttributes.size {value:?} is too small for a file system: give it 16Mi or more")]
    TooSmall { value: String },
    #[error(
        "volumeAttributes.size {value:?} is more than 8Ti: give it less, or leave it out for no limit"
    )]
    TooLarge { value: String },
}

impl VolumeSize {
    /// With less, a file system is mostly its own tables.
    pub const MIN: Self = Self(16 << 20);

    /// A number with the suffixes of Kubernetes' `Quantity` down to the byte (no `m`); a part of a byte
    /// counts as one.
    pub fn parse(text: &str) -> Result<Self, InvalidSize> {
        let value = || text.chars().take(MAX_TEXT).collect();
        let bytes = bytes(text).ok_or_else(|| InvalidSize::NotAQuantity { value: value() })?;
        match u64::try_from(bytes) {
            Ok(bytes) if bytes < Self::MIN.0 => Err(InvalidSize::TooSmall { value: value() }),
            Ok(bytes) if bytes <= MAX => Ok(Self(bytes)),
            _ => Err(InvalidSize::TooLarge { value: value() }),
        }
    }

    pub fn bytes(self) -> u64 {
        self.0
    }
}

fn bytes(text: &str) -> Option<u128> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{part}").parse().ok()?; // a second dot is no digit
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    Some(digits.checked_mul(factor(suffix)?)?.div_ceil(scale))
}

fn factor(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "P" => 1000_u128.pow(5),
        "E" => 1000_u128.pow(6),
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        exponent => 10_u128.checked_pow(exponent.strip_prefix(['e', 'E'])?.parse().ok()?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        let all = [
            ("16777216", 16 << 20),
            ("500Mi", 500 << 20),
            ("2Gi", 2 << 30),
            ("1G", 1_000_000_000),
            ("64000k", 64_000_000),
            ("20480Ki", 20 << 20),
            ("1.5Gi", 3 << 29),
            ("0.001T", 1_000_000_000),
            ("16777216.1", (16 << 20) + 1),
            ("1e9", 1_000_000_000),
            ("1E9", 1_000_000_000),
            ("8Ti", 8 << 40),
        ];
        for (text, bytes) in all {
            assert_eq!(VolumeSize::parse(text).map(VolumeSize::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_value() {
        let long = "9".repeat(40);
        let none = [
            "",
            " ",
            "x",
            "Mi",
            ".",
            "1.2.3Mi",
            "-1Gi",
            "+1Gi",
            "1 Gi",
            "1gi",
            "1GB",
            "100000000000m",
            "1e",
            "1e-3",
            "1ee9",
            "1e99",
            "٣Gi",
            &long,
        ];
        for text in none {
            let value = text.chars().take(MAX_TEXT).collect();
            assert_eq!(VolumeSize::parse(text), Err(InvalidSize::NotAQuantity { value }));
        }
        for text in ["0", "1", "15.9Mi", "16777215"] {
            let value = text.to_owned();
            assert_eq!(VolumeSize::parse(text), Err(InvalidSize::TooSmall { value }));
        }
        for text in ["8796093022209", "9Ti", "1E", "1e30", "99999999999999999999Ei"] {
            let value = text.to_owned();
            assert_eq!(VolumeSize::parse(text), Err(InvalidSize::TooLarge { value }));
        }
    }
}
