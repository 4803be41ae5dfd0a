//! A volume's attributes.

use std::collections::BTreeMap;

/// What a user wrote, literally, by name. A node keeps those of each volume, mostly one: a map's room for eleven would
/// be a tenth of all that it keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes(Box<[(Box<str>, Box<str>)]>);

impl Attributes {
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }
}

impl From<BTreeMap<String, String>> for Attributes {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self(map.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn they_are_a_maps_in_whatever_order_they_came() {
        let one = map(&[("storePath", "/nix/store/x"), ("readOnly", "")]);
        let same = map(&[("readOnly", ""), ("storePath", "/nix/store/x")]);
        assert_eq!(Attributes::from(one.clone()), same.into());
        assert_eq!(Attributes::from(one.clone()).to_map(), one);
        for other in [
            map(&[]),
            map(&[("readOnly", "")]),
            map(&[("storePath", "/nix/store/x"), ("readOnly", "true")]),
        ] {
            assert_ne!(Attributes::from(other), one.clone().into());
        }
    }
}
