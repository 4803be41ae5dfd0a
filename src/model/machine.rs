//! A line of Nix's machines file: a builder as Nix is told of it.
//!
//! Nix reads eight fields with blanks between them, where `-` is "not set"; a `;` ends a line like a
//! newline, and a `#` begins a comment. Each field's type admits none of these, so a line stays a line
//! whatever is in it.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::{Address, PublicKey, System};

/// As whom the cache logs in at a builder.
const USER: &str = "nix";

const MAX_FEATURE: usize = 64;

/// One builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    pub address: Address,
    /// None: the system of the Nix that reads the file.
    pub systems: BTreeSet<System>,
    /// The private key to log in with. None: ssh looks for one by itself.
    pub key: Option<KeyFile>,
    pub max_jobs: NonZeroU32,
    /// An integer: Nix 2.8 reads no fraction here.
    pub speed_factor: NonZeroU32,
    /// A job goes to a builder that has every feature of the job, here or as mandatory, and whose
    /// mandatory features the job has all. So a mandatory feature need not be repeated here.
    pub features: BTreeSet<Feature>,
    pub mandatory_features: BTreeSet<Feature>,
    /// None: ssh asks its own known_hosts.
    pub host_key: Option<PublicKey>,
}

/// The line, without its newline.
///
/// IPv6 stands in brackets. Nix 2.8 takes it with and without, and hands it to ssh, and writes it to
/// its known_hosts, without (tried: `nix@fd00::1`); newer ones read the URI as RFC 3986 has it, with.
/// There is no port: Nix 2.8 hands `host:port` to ssh as if that were the host's name.
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key.as_ref().map_or("-", KeyFile::as_str);
        let host_key = self.host_key.as_ref().map_or_else(|| "-".to_owned(), PublicKey::encoded);
        write!(
            f,
            "ssh-ng://{USER}@{} {} {key} {} {} {} {} {host_key}",
            self.address,
            list(&self.systems),
            self.max_jobs,
            self.speed_factor,
            list(&self.features),
            list(&self.mandatory_features),
        )
    }
}

fn list<T: fmt::Display>(items: &BTreeSet<T>) -> String {
    let items: Vec<_> = items.iter().map(T::to_string).collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

/// Something that a derivation may require of its builder, such as `kvm`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Feature(String);

impl Feature {
    /// What a feature may look like, for messages.
    pub const ALLOWED: &'static str =
        "a letter or digit, then letters, digits and any of . _ + -, 64 at most";

    pub fn parse(text: &str) -> Option<Self> {
        let is_fine = (1..=MAX_FEATURE).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._+-".contains(&c));
        is_fine.then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The path of a private key, as a machines file can hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFile(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} can't be a key's path in a machines file: allowed are absolute paths of letters, digits and any of / . _ + -", .path.display()
)]
pub struct InvalidKeyFile {
    path: PathBuf,
}

impl KeyFile {
    pub fn parse(path: &Path) -> Result<Self, InvalidKeyFile> {
        let is_fine = |text: &&str| {
            text.starts_with('/')
                && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"/._+-".contains(&c))
        };
        let text = path.to_str().filter(is_fine);
        text.map(|t| Self(t.to_owned())).ok_or_else(|| InvalidKeyFile { path: path.to_owned() })
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::btree_set;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    const PUB: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE7V/FEoDBlpAh7737V2Qq63mp66O9YXLdADB3EVD2hg x";

    fn machine(address: &str) -> Machine {
        Machine {
            address: Address::parse(address).unwrap(),
            systems: BTreeSet::new(),
            key: None,
            max_jobs: NonZeroU32::MIN,
            speed_factor: NonZeroU32::MIN,
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
            host_key: None,
        }
    }

    #[test]
    fn what_is_not_set_is_a_dash() {
        assert_eq!(machine("10.0.0.1").to_string(), "ssh-ng://nix@10.0.0.1 - - 1 1 - - -");
        assert_eq!(machine("fd00::1").to_string(), "ssh-ng://nix@[fd00::1] - - 1 1 - - -");
    }

    #[test]
    fn all_eight_fields_are_written() {
        let features = |all: &[&str]| all.iter().map(|f| Feature::parse(f).unwrap()).collect();
        let systems = ["x86_64-linux", "i686-linux"];
        let machine = Machine {
            systems: systems.iter().map(|s| System::parse(s).unwrap()).collect(),
            key: Some(KeyFile::parse(Path::new("/etc/keys/id_ed25519")).unwrap()),
            max_jobs: NonZeroU32::new(16).unwrap(),
            speed_factor: NonZeroU32::new(2).unwrap(),
            features: features(&["kvm", "big-parallel"]),
            mandatory_features: features(&["gpu"]),
            host_key: Some(PublicKey::parse(PUB).unwrap()),
            ..machine("10.0.0.1")
        };
        assert_eq!(
            machine.to_string(),
            "ssh-ng://nix@10.0.0.1 i686-linux,x86_64-linux /etc/keys/id_ed25519 16 2 \
             big-parallel,kvm gpu \
             c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUU3Vi9GRW9EQmxwQWg3NzM3VjJRcTYzbXA2Nk\
             85WVhMZEFEQjNFVkQyaGc="
        );
    }

    /// A text, as often harmless as not.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9._+-]{1,12}", "[ -~\t\r\n]{0,12}", ".{0,8}", "/[a-z/]{0,8}[ ;#@x]?"]
    }

    prop_compose! {
        /// Of arbitrary texts those that the parsers let through.
        fn any_machine()(
            host in text(),
            arch in text(),
            key in text(),
            (max_jobs, speed_factor) in (1..=u32::MAX, 1..=u32::MAX),
            features in btree_set(text(), 0..5),
            mandatory in btree_set(text(), 0..5),
            comment in option::of(text()),
        ) -> Machine {
            let parsed = |all: &BTreeSet<String>| {
                all.iter().filter_map(|text| Feature::parse(text)).collect()
            };
            Machine {
                address: Address::parse(&host)
                    .unwrap_or_else(|_| Address::parse("fd00::2").unwrap()),
                systems: System::parse(&format!("{arch}-linux")).into_iter().collect(),
                key: KeyFile::parse(Path::new(&key)).ok(),
                max_jobs: NonZeroU32::new(max_jobs).unwrap(),
                speed_factor: NonZeroU32::new(speed_factor).unwrap(),
                features: parsed(&features),
                mandatory_features: parsed(&mandatory),
                host_key: comment.and_then(|c| PublicKey::parse(&format!("{PUB} {c}")).ok()),
            }
        }
    }

    proptest! {
        /// As Nix reads it: lines end at `\n` and `;`, `#` begins a comment, `@` at its beginning
        /// names a file.
        #[test]
        fn a_line_is_always_one_line_of_eight_fields(machine in any_machine()) {
            let line = machine.to_string();
            prop_assert!(line.bytes().all(|c| c.is_ascii_graphic() || c == b' '), "{line:?}");
            prop_assert!(!line.contains([';', '#']), "{line:?}");
            prop_assert_eq!(line.matches('@').count(), 1);
            let fields: Vec<_> = line.split(' ').collect();
            prop_assert_eq!(fields.len(), 8, "{:?}", &line);
            prop_assert!(fields.iter().all(|field| !field.is_empty()), "{line:?}");
            let unset = |set: bool, field: &str| set == (field != "-");
            prop_assert!(unset(machine.key.is_some(), fields[2]));
            prop_assert!(unset(!machine.features.is_empty(), fields[5]));
            prop_assert!(unset(!machine.mandatory_features.is_empty(), fields[6]));
        }
    }
}
