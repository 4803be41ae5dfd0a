//! Whom a node may ask for what a namespace wants. A policy leaves out some of the node's substituters; it
//! never adds one, and never changes how one is asked.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::refusal::some;
use crate::model::without_credentials;

/// Parameters of a store's URL that say how it is asked, not which one it is. What is unknown here counts.
const MANNERS: [&str; 16] = [
    "base64-ssh-public-host-key",
    "compress",
    "compression",
    "compression-level",
    "index-debug-info",
    "local-nar-cache",
    "max-connection-age",
    "max-connections",
    "parallel-compression",
    "path-info-cache-size",
    "priority",
    "secret-key",
    "ssh-key",
    "trusted",
    "want-mass-query",
    "write-nar-listing",
];

/// Stores without an address.
const WORDS: [&str; 3] = ["auto", "daemon", "local"];

const NO_URL: &str =
    "it is no URL of a store, such as https://cache.example.org or ssh-ng://nix@nix-cache";

/// A store's URL, as the policy names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Store(String);

/// What two URLs of one store have in common.
#[derive(PartialEq)]
struct Identity<'a> {
    scheme: String,
    /// Host and port; letters don't differ by case.
    place: String,
    path: &'a str,
    /// In order.
    parameters: Vec<&'a str>,
}

impl Store {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(
                "it has a blank or a control character in it: write one URL for each entry",
            );
        }
        let address = text.split('?').next().unwrap_or_default();
        let is_url = match address.split_once("://") {
            Some((scheme, rest)) => {
                let is_of_scheme = |c: u8| c.is_ascii_alphanumeric() || b"+-.".contains(&c);
                !scheme.is_empty() && scheme.bytes().all(is_of_scheme) && !rest.is_empty()
            }
            None => address.starts_with('/') || WORDS.contains(&address),
        };
        if !is_url {
            return Err(NO_URL);
        }
        if split(text).1.is_some_and(|user| user.contains(':')) {
            return Err("it has a password in it: leave that out, the node's own URL has it");
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether `url` is of this store: of any user's if none is named here.
    fn is(&self, url: &str) -> bool {
        let (named, user) = split(&self.0);
        let (other, others) = split(url);
        let others = others.map(|user| user.split(':').next().unwrap_or_default());
        named == other && (user.is_none() || user == others)
    }
}

/// With the user, password and all.
fn split(url: &str) -> (Identity<'_>, Option<&str>) {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    let scheme = scheme.to_ascii_lowercase();
    let is_how = |pair: &&str| MANNERS.contains(&pair.split('=').next().unwrap_or_default());
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut parameters: Vec<_> = pairs.filter(|pair| !is_how(pair)).collect();
    parameters.sort_unstable();
    if scheme.is_empty() {
        let path = if rest == "/" { rest } else { rest.trim_end_matches('/') };
        return (Identity { scheme, place: String::new(), path, parameters }, None);
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let usual = match &*scheme {
        "http" => ":80",
        "https" => ":443",
        "ssh" | "ssh-ng" => ":22",
        _ => ":",
    };
    let place = place.strip_suffix(usual).unwrap_or(place).to_ascii_lowercase();
    (Identity { scheme, place, path: path.trim_end_matches('/'), parameters }, user)
}

/// What a part of the policy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stores {
    Any,
    Only(Arc<[Store]>),
}

/// Those of the node's substituters that may be asked for a namespace. The same stores are the same in any order,
/// and by any key of the policy: what fails is told to all who may ask the same, so that it does not name one's key.
#[derive(Debug, Clone)]
pub struct FetchFrom {
    stores: Arc<[Store]>,
}

impl PartialEq for FetchFrom {
    fn eq(&self, other: &Self) -> bool {
        self.set() == other.set()
    }
}

impl Eq for FetchFrom {}

impl Hash for FetchFrom {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.set().hash(state);
    }
}

impl Stores {
    /// `None`: all that the node has.
    pub(super) fn fetch_from(&self) -> Option<FetchFrom> {
        match self {
            Self::Any => None,
            Self::Only(stores) => Some(FetchFrom { stores: stores.clone() }),
        }
    }
}

impl FetchFrom {
    /// What makes two the same.
    pub fn set(&self) -> BTreeSet<&str> {
        self.stores.iter().map(|store| &*store.0).collect()
    }

    /// Whether the store at `url`, as the node has it, may be asked.
    pub fn allows(&self, url: &str) -> bool {
        self.stores.iter().any(|store| store.is(url))
    }

    /// What is allowed and is none of `urls`, for people.
    pub fn unknown_to(&self, urls: &[&str]) -> Vec<String> {
        let is_unknown = |store: &&Store| !urls.iter().any(|url| store.is(url));
        self.stores.iter().filter(is_unknown).map(ToString::to_string).collect()
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_credentials(&self.0))
    }
}

impl fmt::Display for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("true"),
            Self::Only(stores) if stores.is_empty() => f.write_str("false"),
            Self::Only(stores) => {
                let all: Vec<_> = stores.iter().map(ToString::to_string).collect();
                f.write_str(&all.join(", "))
            }
        }
    }
}

/// It becomes an Event: of many, some.
impl fmt::Display for FetchFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<_> = self.stores.iter().map(ToString::to_string).collect();
        f.write_str("the policy's substituters let this namespace fetch from ")?;
        if all.is_empty() { f.write_str("nowhere") } else { write!(f, "{} alone", some(&all)) }
    }
}
