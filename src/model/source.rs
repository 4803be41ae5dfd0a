//! Which closure a volume asks for: the rule that picks one source from `volumeAttributes`.

use std::collections::BTreeMap;
use std::fmt;

use super::{InvalidStorePath, SIZE, StorePath, without_credentials};

/// Bytes; the kernel refuses a single argument above 128 KiB, and the expression becomes one.
const MAX_EXPRESSION: usize = 64 * 1024;
const MAX_REFERENCE: usize = 4 * 1024;
const MAX_SYSTEM: usize = 64;
/// What is said about the pod, not about the source.
pub const HOST_USERS: &str = "hostUsers";
const SOURCE_KEYS: [&str; 4] = ["storePath", "flakeRef", "nixExpr", "expression"];
/// All keys of `volumeAttributes`, beside systems and the kubelet's own.
pub const ATTRIBUTES: [&str; 6] =
    [SOURCE_KEYS[0], SOURCE_KEYS[1], SOURCE_KEYS[2], SOURCE_KEYS[3], HOST_USERS, SIZE];

/// A Nix system such as `x86_64-linux`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct System(String);

impl System {
    /// The system of the machine this was compiled for, which is the node's.
    pub fn current() -> Self {
        let arch = match std::env::consts::ARCH {
            "x86" => "i686",
            "arm" => "armv7l",
            "powerpc64" => "powerpc64le",
            other => other,
        };
        Self(format!("{arch}-linux"))
    }

    /// Parses what [`Self::is_key`] lets through.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= MAX_SYSTEM && Self::is_key(text)).then(|| Self(text.to_owned()))
    }

    /// A key such as `aarch64-linux`: an architecture, a dash, a kernel's name.
    fn is_key(key: &str) -> bool {
        key.split_once('-').is_some_and(|(arch, kernel)| {
            !arch.is_empty()
                && arch.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
                && matches!(kernel, "linux" | "darwin" | "freebsd" | "netbsd" | "openbsd")
        })
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is to be realised.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Source {
    StorePath(StorePath),
    /// A flake reference with an optional attribute, `github:owner/repo#attr`.
    FlakeRef(String),
    /// The text of an expression; a function is called with its defaults.
    NixExpr(String),
}

impl Source {
    /// A source of the kind that the attribute `key` carries.
    pub fn parse(key: &str, value: &str) -> Result<Self, InvalidSource> {
        if SOURCE_KEYS.contains(&key) {
            parse(key, value)
        } else {
            Err(InvalidSource::UnknownKey { key: key.chars().take(80).collect() })
        }
    }

    /// The attribute that carries this kind of source.
    pub fn key(&self) -> &'static str {
        match self {
            Self::StorePath(_) => "storePath",
            Self::FlakeRef(_) => "flakeRef",
            Self::NixExpr(_) => "nixExpr",
        }
    }

    /// The value for people and logs: without credentials.
    pub fn public_text(&self) -> String {
        without_credentials(&self.text()).into_owned()
    }

    /// The value as the user wrote it.
    pub fn text(&self) -> String {
        match self {
            Self::StorePath(path) => path.to_string(),
            Self::FlakeRef(text) | Self::NixExpr(text) => text.clone(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line, whatever the expression looks like.
        let text = self.text().split_whitespace().collect::<Vec<_>>().join(" ");
        let text = without_credentials(&text);
        let short: String = text.chars().take(80).collect();
        write!(f, "{} {short}{}", self.key(), if short.len() < text.len() { "…" } else { "" })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    #[error(
        "volumeAttributes name no source for {system}: give exactly one of storePath, flakeRef, nixExpr or {system} (keys seen: {})", list(.seen)
    )]
    Missing { system: String, seen: Vec<String> },
    #[error(
        "volumeAttributes name {} sources for {system} ({}): give exactly one of storePath, flakeRef, nixExpr or {system}", .seen.len(), list(.seen)
    )]
    Several { system: String, seen: Vec<String> },
    #[error(
        "volumeAttributes has an unknown key {key:?}: known are storePath, flakeRef, nixExpr, expression, hostUsers, size and systems such as x86_64-linux"
    )]
    UnknownKey { key: String },
    #[error("volumeAttributes.{key} is empty: give it a value or leave the key out")]
    Empty { key: String },
    #[error(
        "volumeAttributes.{key} has {len} bytes, more than the {max} allowed: {}", shorter(.key)
    )]
    TooLong { key: String, len: usize, max: usize },
    #[error("volumeAttributes.{key} has a control character in it")]
    ControlCharacter { key: String },
    #[error("volumeAttributes.{key}: {reason}")]
    StorePath { key: String, reason: InvalidStorePath },
}

fn is_expression(key: &str) -> bool {
    matches!(key, "nixExpr" | "expression")
}

fn shorter(key: &str) -> &'static str {
    if is_expression(key) { "put a long expression into a flake" } else { "give a shorter one" }
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
}

/// Picks the one source for a node of `system`.
///
/// A key for this system wins; keys for other systems are ignored; of the rest exactly one may be
/// there. Keys with a `/` in them, such as the kubelet's `csi.storage.k8s.io/…`, are not sources.
pub fn choose_source(
    attributes: &BTreeMap<String, String>,
    system: &System,
) -> Result<Source, InvalidSource> {
    let own: Vec<&String> = attributes.keys().filter(|k| !k.contains('/')).collect();
    let is_known = |k: &str| ATTRIBUTES.contains(&k) || System::is_key(k);
    if let Some(unknown) = own.iter().find(|k| !is_known(k)) {
        return Err(InvalidSource::UnknownKey { key: unknown.chars().take(80).collect() });
    }
    if let Some(value) = attributes.get(&system.0) {
        return parse(&system.0, value);
    }
    let present: Vec<&str> =
        SOURCE_KEYS.into_iter().filter(|k| attributes.contains_key(*k)).collect();
    match present[..] {
        [key] => parse(key, &attributes[key]),
        [] => Err(InvalidSource::Missing { system: system.0.clone(), seen: some(&own) }),
        _ => Err(InvalidSource::Several {
            system: system.0.clone(),
            seen: present.into_iter().map(str::to_owned).collect(),
        }),
    }
}

/// Keys for a message: a request may have thousands, each of any length.
fn some(keys: &[&String]) -> Vec<String> {
    const MOST: usize = 10;
    let short = |key: &&String| key.chars().take(80).collect();
    let more = (keys.len() > MOST).then(|| "…".to_owned());
    keys.iter().take(MOST).map(short).chain(more).collect()
}

fn parse(key: &str, value: &str) -> Result<Source, InvalidSource> {
    let key_owned = || key.to_owned();
    let is_expression = is_expression(key);
    let max = if is_expression { MAX_EXPRESSION } else { MAX_REFERENCE };
    if value.len() > max {
        return Err(InvalidSource::TooLong { key: key_owned(), len: value.len(), max });
    }
    if value.trim().is_empty() {
        return Err(InvalidSource::Empty { key: key_owned() });
    }
    let allowed_control = |c| is_expression && matches!(c, '\n' | '\r' | '\t');
    if value.chars().any(|c| c.is_control() && !allowed_control(c)) {
        return Err(InvalidSource::ControlCharacter { key: key_owned() });
    }
    match key {
        "flakeRef" => Ok(Source::FlakeRef(value.to_owned())),
        "nixExpr" | "expression" => Ok(Source::NixExpr(value.to_owned())),
        _ => StorePath::parse(value)
            .map(Source::StorePath)
            .map_err(|reason| InvalidSource::StorePath { key: key_owned(), reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello";

    fn choose(pairs: &[(&str, &str)]) -> Result<Source, InvalidSource> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        choose_source(&map, &System("x86_64-linux".into()))
    }

    fn store_path() -> Source {
        Source::StorePath(StorePath::parse(PATH).unwrap())
    }

    #[test]
    fn logs_show_no_credentials() {
        let shown = |text: &str| format!("{:?}", Source::FlakeRef(text.to_owned()));
        let clean = "flakeRef git+https://host/a@b?ref=x#y";
        assert_eq!(shown("git+https://user:token@host/a@b?ref=x#y"), clean);
        assert_eq!(shown("git+https://host/a@b?ref=x#y"), clean);
        assert_eq!(shown("a://t@b c://u:v@d/e"), "flakeRef a://b c://d/e");
    }

    #[test]
    fn one_source_is_taken() {
        assert_eq!(choose(&[("storePath", PATH)]).unwrap(), store_path());
        assert_eq!(choose(&[("flakeRef", "a#b")]).unwrap(), Source::FlakeRef("a#b".into()));
        assert_eq!(choose(&[("nixExpr", "1\n")]).unwrap(), Source::NixExpr("1\n".into()));
        assert_eq!(choose(&[("expression", "1")]).unwrap(), Source::NixExpr("1".into()));
    }

    #[test]
    fn this_systems_key_wins_and_others_are_ignored() {
        assert_eq!(choose(&[("x86_64-linux", PATH), ("flakeRef", "x")]).unwrap(), store_path());
        assert_eq!(choose(&[("aarch64-linux", PATH), ("storePath", PATH)]).unwrap(), store_path());
        let err = choose(&[("aarch64-linux", PATH)]).unwrap_err();
        assert_eq!(
            err.to_string(),
            "volumeAttributes name no source for x86_64-linux: give exactly one of storePath, \
             flakeRef, nixExpr or x86_64-linux (keys seen: aarch64-linux)"
        );
    }

    #[test]
    fn none_or_several_name_the_keys() {
        assert_eq!(
            choose(&[("csi.storage.k8s.io/pod.name", "p")]).unwrap_err().to_string(),
            "volumeAttributes name no source for x86_64-linux: give exactly one of storePath, \
             flakeRef, nixExpr or x86_64-linux (keys seen: none)"
        );
        assert_eq!(
            choose(&[("nixExpr", "1"), ("flakeRef", "x")]).unwrap_err().to_string(),
            "volumeAttributes name 2 sources for x86_64-linux (flakeRef, nixExpr): give exactly \
             one of storePath, flakeRef, nixExpr or x86_64-linux"
        );
    }

    #[test]
    fn of_many_keys_some_are_named() {
        let keys: Vec<_> = (0..5000).map(|n| format!("a{n}{}-linux", "a".repeat(200))).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), PATH)).collect();
        let message = choose(&pairs).unwrap_err().to_string();
        assert!(message.len() < 1200 && message.ends_with(", …)"), "{message}");
    }

    #[test]
    fn bad_values_name_their_key() {
        assert_eq!(
            choose(&[("storepath", PATH)]).unwrap_err(),
            InvalidSource::UnknownKey { key: "storepath".into() }
        );
        assert_eq!(
            choose(&[("flakeRef", " ")]).unwrap_err(),
            InvalidSource::Empty { key: "flakeRef".into() }
        );
        assert_eq!(
            choose(&[("flakeRef", "a\nb")]).unwrap_err(),
            InvalidSource::ControlCharacter { key: "flakeRef".into() }
        );
        let long = "x".repeat(64 * 1024 + 1);
        assert!(matches!(choose(&[("nixExpr", &long)]), Err(InvalidSource::TooLong { .. })));
        assert!(matches!(
            choose(&[("x86_64-linux", "/etc/passwd")]),
            Err(InvalidSource::StorePath { ref key, .. }) if key == "x86_64-linux"
        ));
    }
}
