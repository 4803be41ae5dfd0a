//! The policy's text.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::Policy;
use super::limits::Written;
use super::reference::Prefix;
use super::rules::{By, Flakes, Paths, Preset, Rules, Said};
use super::substituters::{Store, Stores};
use crate::model::{SigningKey, VolumeSize, without_credentials};

/// Bytes: what is read of a mounted file.
const MAX: usize = 256 << 10;
/// Of a value in a message.
const MAX_SHOWN: usize = 80;
/// Of a namespace's name, a DNS label (RFC 1123).
const MAX_NAME: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    #[error("the policy is empty: write `preset: open` to allow everything, or `preset: strict`")]
    Empty,
    #[error("the policy has {len} bytes, more than the {MAX} allowed")]
    TooLong { len: usize },
    #[error("the policy is no YAML of the right form: {reason}")]
    Form { reason: String },
    #[error("{key} {value:?}: {reason}")]
    Value { key: String, value: String, reason: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    preset: Preset,
    #[serde(default)]
    default: Part,
    #[serde(default)]
    namespaces: BTreeMap<String, Part>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Part {
    store_path: Option<StorePaths>,
    flake_ref: Option<FlakeRef>,
    nix_expr: Option<bool>,
    writable: Option<bool>,
    max_size: Option<String>,
    max_volumes: Option<Count>,
    max_builds: Option<Count>,
    max_evaluations: Option<Count>,
    evaluation_time: Option<String>,
    evaluation_memory: Option<String>,
    public_keys: Option<Vec<String>>,
    signed: Option<bool>,
    substituters: Option<Urls>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "storePath is true, false or public")]
enum StorePaths {
    All(bool),
    Word(Public),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Public {
    Public,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "flakeRef is true, false or a list of what references may begin with"
)]
enum FlakeRef {
    All(bool),
    Prefixes(Vec<String>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "substituters is true, false or a list of stores' URLs")]
enum Urls {
    All(bool),
    Only(Vec<String>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "each of maxBuilds, maxEvaluations and maxVolumes is a number, or none"
)]
pub(super) enum Count {
    Most(u32),
    Word(NoLimit),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NoLimit {
    None,
}

impl Count {
    /// `None` is no limit.
    pub(super) fn most(self) -> Option<u32> {
        match self {
            Self::Most(most) => Some(most),
            Self::Word(NoLimit::None) => None,
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Policy, InvalidPolicy> {
    if text.trim().is_empty() {
        return Err(InvalidPolicy::Empty);
    }
    if text.len() > MAX {
        return Err(InvalidPolicy::TooLong { len: text.len() });
    }
    let document: Document = serde_saphyr::from_str(text).map_err(|error| {
        // One line for a log; the rest is an extract of the text.
        let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        InvalidPolicy::Form { reason: reason.chars().take(400).collect() }
    })?;
    let default = overlay(&Rules::of(document.preset), document.default, &By::Default)?;
    let (mut exact, mut patterns) = (BTreeMap::new(), Vec::new());
    for (name, part) in document.namespaces {
        let pattern = name.strip_suffix('*');
        // First, since what is wrong in the rules is said with the name.
        let checked = check_name(&name, pattern.unwrap_or(&name), pattern.is_some())?;
        let rules = overlay(&default, part, &By::Namespace(name.clone()))?;
        match pattern {
            Some(_) => patterns.push((checked, rules)),
            None => drop(exact.insert(checked, rules)),
        }
    }
    patterns.sort_by_key(|(start, _)| std::cmp::Reverse(start.len()));
    Ok(Policy { default, exact, patterns })
}

fn check_name(whole: &str, name: &str, is_pattern: bool) -> Result<String, InvalidPolicy> {
    let is_label = name.len() <= MAX_NAME
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
        && !name.starts_with('-')
        && (is_pattern || !(name.is_empty() || name.ends_with('-')));
    if is_label {
        return Ok(name.to_owned());
    }
    let reason = "it is no namespace's name: small letters, digits and -, with a * at its end for all \
                  that begin so";
    Err(invalid("namespaces", whole, reason))
}

pub(super) fn invalid(key: &str, value: &str, reason: &str) -> InvalidPolicy {
    let value = value.chars().take(MAX_SHOWN).collect();
    InvalidPolicy::Value { key: key.to_owned(), value, reason: reason.to_owned() }
}

/// What `part` says counts, and else what `below` does.
fn overlay(below: &Rules, part: Part, by: &By) -> Result<Rules, InvalidPolicy> {
    let flake_ref = part.flake_ref.map(|flakes| self::flakes(flakes, by)).transpose()?;
    let max_size = part.max_size.map(|text| size(&text, by)).transpose()?;
    let written = Written {
        builds: part.max_builds,
        evaluations: part.max_evaluations,
        time: part.evaluation_time,
        memory: part.evaluation_memory,
    };
    let store_path = part.store_path.map(|paths| match paths {
        StorePaths::All(true) => Paths::Any,
        StorePaths::All(false) => Paths::None,
        StorePaths::Word(Public::Public) => Paths::Public,
    });
    let public_keys = part.public_keys.map(|list| keys(&list, by)).transpose()?;
    let substituters = part.substituters.map(|urls| stores(urls, by)).transpose()?;
    Ok(Rules {
        store_path: said(store_path, by, &below.store_path),
        flake_ref: said(flake_ref, by, &below.flake_ref),
        nix_expr: said(part.nix_expr, by, &below.nix_expr),
        writable: said(part.writable, by, &below.writable),
        max_size: said(max_size, by, &below.max_size),
        max_volumes: said(part.max_volumes.map(Count::most), by, &below.max_volumes),
        public_keys: said(public_keys, by, &below.public_keys),
        signed: said(part.signed, by, &below.signed),
        substituters: said(substituters, by, &below.substituters),
        limits: below.limits.overlaid(written, by)?,
    })
}

fn said<T: Clone>(value: Option<T>, by: &By, below: &Said<T>) -> Said<T> {
    below.or(value, by)
}

fn flakes(text: FlakeRef, by: &By) -> Result<Flakes, InvalidPolicy> {
    match text {
        FlakeRef::All(true) => Ok(Flakes::Any),
        FlakeRef::All(false) => Ok(Flakes::Only(Vec::new())),
        FlakeRef::Prefixes(list) => {
            let parse = |text: String| {
                Prefix::parse(&text).map_err(|reason| invalid(&by.key("flakeRef"), &text, reason))
            };
            list.into_iter().map(parse).collect::<Result<_, _>>().map(Flakes::Only)
        }
    }
}

fn stores(urls: Urls, by: &By) -> Result<Stores, InvalidPolicy> {
    match urls {
        Urls::All(true) => Ok(Stores::Any),
        Urls::All(false) => Ok(Stores::Only(Arc::new([]))),
        Urls::Only(list) => {
            let parse = |text: String| {
                let shown = without_credentials(&text);
                Store::parse(&text).map_err(|why| invalid(&by.key("substituters"), &shown, why))
            };
            list.into_iter().map(parse).collect::<Result<_, _>>().map(Stores::Only)
        }
    }
}

fn keys(list: &[String], by: &By) -> Result<Arc<[SigningKey]>, InvalidPolicy> {
    let parse = |text: &String| {
        // It may be a secret one: its name alone is shown.
        let shown = text.split(':').next().unwrap_or_default();
        SigningKey::parse(text).map_err(|reason| invalid(&by.key("publicKeys"), shown, reason))
    };
    list.iter().map(parse).collect()
}

/// `none` is no limit, where one is inherited.
fn size(text: &str, by: &By) -> Result<Option<VolumeSize>, InvalidPolicy> {
    if text == "none" {
        return Ok(None);
    }
    let reason = "it is no size from 16Mi to 8Ti, such as 500Mi or 2Gi; none is no limit";
    VolumeSize::parse(text).map(Some).map_err(|_| invalid(&by.key("maxSize"), text, reason))
}
