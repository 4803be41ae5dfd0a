//! What counts for one namespace, and which part of the policy says so.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use super::limits::Limits;
use super::reference::{Mismatch, Prefix, check};
use super::refusal::{Refusal, Why};
use super::substituters::{FetchFrom, Stores};
use crate::model::{Access, Sight, SigningKey, Source, StorePath, VolumeSize, VolumeSpec, Vouched};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Everything, without a limit: one team.
    Open,
    /// Nothing that is not allowed: many teams that don't trust each other.
    Strict,
}

/// Who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum By {
    Preset(Preset),
    Default,
    Namespace(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said<T> {
    pub(super) value: T,
    pub(super) by: By,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Flakes {
    Any,
    Only(Vec<Prefix>),
}

/// Which store paths a namespace may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paths {
    Any,
    None,
    /// Those that one of the keys has signed, and what its own sources have come to.
    Public,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub(super) store_path: Said<Paths>,
    pub(super) flake_ref: Said<Flakes>,
    pub(super) nix_expr: Said<bool>,
    pub(super) writable: Said<bool>,
    /// Of a writable volume, which then needs a size.
    pub(super) max_size: Said<Option<VolumeSize>>,
    /// At once on one node.
    pub(super) max_volumes: Said<Option<u32>>,
    /// Whose signatures count.
    pub(super) public_keys: Said<Arc<[SigningKey]>>,
    /// A closure must be signed, whatever its source.
    pub(super) signed: Said<bool>,
    /// Whom the node asks for its closures.
    pub(super) substituters: Said<Stores>,
    pub(super) limits: Limits,
}

impl By {
    /// Where in the text it stands.
    pub(super) fn key(&self, key: &str) -> String {
        match self {
            Self::Preset(preset) => format!("preset {preset}, {key}"),
            Self::Default => format!("default.{key}"),
            Self::Namespace(name) => format!("namespaces.{name}.{key}"),
        }
    }
}

impl<T: Clone> Said<T> {
    /// A nearer word, if there is one.
    pub(super) fn or(&self, value: Option<T>, by: &By) -> Self {
        value.map_or_else(|| self.clone(), |value| Self { value, by: by.clone() })
    }
}

impl Rules {
    pub(super) fn of(preset: Preset) -> Self {
        let by = By::Preset(preset);
        let is_open = preset == Preset::Open;
        let allowed = || Said { value: is_open, by: by.clone() };
        let paths = if is_open { Paths::Any } else { Paths::Public };
        let flakes = if is_open { Flakes::Any } else { Flakes::Only(Vec::new()) };
        Self {
            store_path: Said { value: paths, by: by.clone() },
            flake_ref: Said { value: flakes, by: by.clone() },
            nix_expr: allowed(),
            writable: allowed(),
            max_size: Said { value: None, by: by.clone() },
            max_volumes: Said { value: None, by: by.clone() },
            public_keys: Said { value: Arc::new([]), by: by.clone() },
            signed: Said { value: false, by: by.clone() },
            substituters: Said { value: Stores::Any, by: by.clone() },
            limits: Limits::of(preset),
        }
    }

    /// Whether a namespace may have the volume.
    pub fn check(&self, spec: &VolumeSpec) -> Result<(), Refusal> {
        self.check_source(&spec.source)?;
        if spec.access == Access::ReadOnly {
            return Ok(());
        }
        if !self.writable.value {
            return Err(Refusal::new(self.writable.by.key("writable"), Why::Writable));
        }
        let Some(most) = self.max_size.value else { return Ok(()) };
        match spec.size {
            Some(size) if size.bytes() <= most.bytes() => Ok(()),
            size => {
                let why = Why::Size { asked: size.map(VolumeSize::bytes), most: most.bytes() };
                Err(Refusal::new(self.max_size.by.key("maxSize"), why))
            }
        }
    }

    fn check_source(&self, source: &Source) -> Result<(), Refusal> {
        let refusal = |by: &By| Refusal::new(by.key(source.key()), Why::Kind(source.key()));
        let allowed = |said: &Said<bool>| {
            if said.value { Ok(()) } else { Err(refusal(&said.by)) }
        };
        match source {
            Source::StorePath(_) if self.store_path.value == Paths::None => {
                Err(refusal(&self.store_path.by))
            }
            // Of the others, it depends on the path.
            Source::StorePath(_) => Ok(()),
            Source::NixExpr(_) => allowed(&self.nix_expr),
            Source::FlakeRef(reference) => self.check_flake(reference, &source.public_text()),
        }
    }

    fn check_flake(&self, reference: &str, shown: &str) -> Result<(), Refusal> {
        let Flakes::Only(prefixes) = &self.flake_ref.value else { return Ok(()) };
        let rule = self.flake_ref.by.key("flakeRef");
        if prefixes.is_empty() {
            return Err(Refusal::new(rule, Why::Kind("flakeRef")));
        }
        let asked = || shown.chars().take(200).collect();
        check(prefixes, reference).map_err(|mismatch| {
            let why = match mismatch {
                Mismatch::Elsewhere => {
                    let allowed = prefixes.iter().map(ToString::to_string).collect();
                    Why::Elsewhere { asked: asked(), allowed }
                }
                Mismatch::Ambiguous(reason) => Why::Ambiguous { asked: asked(), reason },
            };
            Refusal::new(rule, why)
        })
    }

    /// Whether a namespace may have one more volume on the node, where it has so many.
    pub fn check_count(&self, volumes: u32) -> Result<(), Refusal> {
        match self.max_volumes.value {
            Some(most) if volumes >= most => {
                Err(Refusal::new(self.max_volumes.by.key("maxVolumes"), Why::Count { most }))
            }
            _ => Ok(()),
        }
    }

    /// What evaluations and builds may take.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// `None`: all of the node's substituters.
    pub fn fetch_from(&self) -> Option<FetchFrom> {
        self.substituters.value.fetch_from()
    }

    /// What evaluations may read.
    pub fn sight(&self) -> Sight {
        if self.store_path.value == Paths::Any { Sight::Store } else { Sight::Own }
    }

    /// Whether a path is only shown to who has built it, or if [`Self::check_public`] says so.
    pub fn keeps_private(&self, source: &Source) -> bool {
        self.store_path.value == Paths::Public && matches!(source, Source::StorePath(_))
    }

    /// Whether anybody may name the path.
    pub fn check_public(&self, root: &Vouched) -> Result<(), Refusal> {
        if root.is_signed_by(&self.public_keys.value) {
            return Ok(());
        }
        let why = Why::Private { path: root.path.clone(), keys: self.names_of_keys() };
        Err(Refusal::new(self.store_path.by.key("storePath"), why))
    }

    /// The keys with one of which all of a closure must be signed.
    pub fn signers(&self) -> Option<Arc<[SigningKey]>> {
        self.signed.value.then(|| self.public_keys.value.clone())
    }

    /// A path of the closure that is not.
    pub fn unsigned(&self, path: StorePath) -> Refusal {
        let why = Why::Unsigned { path, keys: self.names_of_keys() };
        Refusal::new(self.signed.by.key("signed"), why)
    }

    fn names_of_keys(&self) -> Vec<String> {
        self.public_keys.value.iter().map(|key| key.name().to_owned()).collect()
    }

    /// What counts, with who says so: key, value, key of the policy.
    pub fn list(&self) -> Vec<(&'static str, String, String)> {
        let row = |key, value: String, by: &By| (key, value, by.key(key));
        let flag = |key, said: &Said<bool>| row(key, said.value.to_string(), &said.by);
        let flakes = match &self.flake_ref.value {
            Flakes::Any => "true".to_owned(),
            Flakes::Only(all) if all.is_empty() => "false".to_owned(),
            Flakes::Only(all) => all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        let paths = match self.store_path.value {
            Paths::Any => "true",
            Paths::None => "false",
            Paths::Public => "public",
        };
        let keys = self.names_of_keys();
        let keys = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
        let size = self.max_size.value.map_or_else(|| "none".to_owned(), |s| s.bytes().to_string());
        let count = self.max_volumes.value.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let mut all = vec![
            row("storePath", paths.to_owned(), &self.store_path.by),
            row("flakeRef", flakes, &self.flake_ref.by),
            flag("nixExpr", &self.nix_expr),
            flag("writable", &self.writable),
            row("maxSize", size, &self.max_size.by),
            row("maxVolumes", count, &self.max_volumes.by),
            row("publicKeys", keys, &self.public_keys.by),
            flag("signed", &self.signed),
            row("substituters", self.substituters.value.to_string(), &self.substituters.by),
        ];
        all.extend(self.limits.list());
        all
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Strict => "strict",
        })
    }
}
