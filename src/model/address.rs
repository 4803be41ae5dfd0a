//! Where a builder is reached: an IP address, or a name.

use std::fmt;
use std::net::IpAddr;

/// RFC 1035: of a label and of a name.
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;

/// A host that ssh can be told to connect to. It holds nothing that could be taken for an option, a
/// user or a second word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Host);

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Host {
    Ip(IpAddr),
    Name(String),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{value:?} is no address: allowed are an IP address and a DNS name of a-z, 0-9, - and dots"
)]
pub struct InvalidAddress {
    value: String,
}

impl Address {
    /// Parses `10.0.0.1`, `fd00::1`, `[fd00::1]` or a DNS name in lower case.
    pub fn parse(value: &str) -> Result<Self, InvalidAddress> {
        let bare = value.strip_prefix('[').and_then(|v| v.strip_suffix(']'));
        let host = match (bare, value.parse::<IpAddr>()) {
            (Some(bare), _) => bare.parse().ok().map(|ip| Host::Ip(IpAddr::V6(ip))),
            (None, Ok(ip)) => Some(Host::Ip(ip)),
            (None, Err(_)) => is_name(value).then(|| Host::Name(value.to_owned())),
        };
        let short = || value.chars().take(80).collect();
        host.map(Self).ok_or_else(|| InvalidAddress { value: short() })
    }
}

fn is_name(value: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // What ends in a number is an address in an old notation: `10.1` is 10.0.0.1 to a resolver.
    let ends_in_number =
        value.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    value.len() <= MAX_NAME && value.split('.').all(is_label) && !ends_in_number
}

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Self {
        Self(Host::Ip(ip))
    }
}

/// As in a URI: IPv6 in brackets.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_shown_as_in_a_uri() {
        for (text, shown) in [
            ("10.0.0.1", "10.0.0.1"),
            ("fd00::1", "[fd00::1]"),
            ("[fd00::1]", "[fd00::1]"),
            ("node-1.builders.nix.svc.cluster.local", "node-1.builders.nix.svc.cluster.local"),
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn nothing_else_is_an_address() {
        let long = ["a"; 128].join(".");
        for text in [
            "",
            ".",
            "a..b",
            "-oProxyCommand=x",
            "a-.b",
            "nix@host",
            "host:22",
            "host/x",
            "host?x=y",
            "ho st",
            "host\n",
            "h;x",
            "h#x",
            "[10.0.0.1]",
            "[fd00::1",
            "fd00::1%eth0",
            "Node",
            "10.1",
            "10.0.0.256",
            &long,
            &"a".repeat(64),
        ] {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }
}
