//! What a realisation knows of what was asked, and what comes of it.

use tracing::Span;

use super::memory::Key;
use crate::model::{Source, StorePath, Viewer};
use crate::nix::{Buildable, Origin, Realised, locked_revision};
use crate::trace;

/// What is to be realised, as far as it is known.
pub(super) struct Asked {
    /// Locked, if it was a mutable reference.
    pub(super) source: Source,
    pub(super) key: Key,
    pub(super) revision: Option<String>,
    /// Once it is evaluated.
    pub(super) derivation: Option<StorePath>,
    /// With its secret and the limits that count, once those were needed.
    pub(super) viewer: Option<Viewer>,
}

impl Asked {
    pub(super) fn of(source: &Source, viewer: &Viewer) -> Self {
        let revision = match source {
            Source::FlakeRef(reference) => locked_revision(reference).map(str::to_owned),
            Source::StorePath(_) | Source::NixExpr(_) => None,
        };
        Self {
            source: source.clone(),
            key: Key::of(source, viewer),
            revision,
            derivation: None,
            viewer: None,
        }
    }
}

/// A source that is as good as realised, or what is to be built.
pub(super) enum Next {
    Done(Realised),
    Build(Buildable),
}

/// What was asked for can't tell whether it is built or fetched.
pub(super) fn tell_trace(span: &Span, Realised { root, origin, .. }: &Realised) {
    let name = match origin {
        Origin::Present | Origin::Built => "build",
        Origin::Substituted => "fetch",
    };
    trace::rename(span, name);
    trace::set(span, "origin", origin.as_str());
    trace::set(span, "store_path", root.to_string());
}

pub(super) fn present(root: StorePath) -> Next {
    Next::Done(Realised { root, origin: Origin::Present, in_cache: false })
}
