//! What is told to a pod's author whom the policy refuses: the field, its value, the rule, the way out.

use std::fmt;

use crate::model::StorePath;

/// A volume that a namespace may not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The key of the policy that says so.
    pub rule: String,
    why: Why,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// Not a source of this kind.
    Kind(&'static str),
    Elsewhere {
        asked: String,
        allowed: Vec<String>,
    },
    Ambiguous {
        asked: String,
        reason: &'static str,
    },
    Writable,
    /// Bytes.
    Size {
        asked: Option<u64>,
        most: u64,
    },
    Count {
        most: u32,
    },
    /// Not public, and not the namespace's own. Names of keys.
    Private {
        path: StorePath,
        keys: Vec<String>,
    },
    /// A path of the closure that none of these keys has signed.
    Unsigned {
        path: StorePath,
        keys: Vec<String>,
    },
}

impl Refusal {
    pub(super) fn new(rule: String, why: Why) -> Self {
        Self { rule, why }
    }

    /// All that [`Self::kind`] gives.
    pub const KINDS: [&str; 8] =
        ["storePath", "flakeRef", "nixExpr", "writable", "size", "volumes", "private", "unsigned"];

    /// What it is about, for metrics.
    pub fn kind(&self) -> &'static str {
        match self.why {
            Why::Kind(key) => key,
            Why::Elsewhere { .. } | Why::Ambiguous { .. } => "flakeRef",
            Why::Writable => "writable",
            Why::Size { .. } => "size",
            Why::Count { .. } => "volumes",
            Why::Private { .. } => "private",
            Why::Unsigned { .. } => "unsigned",
        }
    }

    /// It may pass by itself.
    pub fn is_of_the_moment(&self) -> bool {
        matches!(self.why, Why::Count { .. })
    }

    /// With whose it is.
    pub fn text(&self, namespace: &str) -> String {
        format!("the policy refuses this to namespace {namespace} ({}): {self}", self.rule)
    }
}

/// Names of keys.
fn signed_by(keys: &[String]) -> String {
    match keys {
        [] => "there are no publicKeys whose signature would count".to_owned(),
        keys => format!("it has no signature of {}", some(keys)),
    }
}

/// It becomes an Event: of many, some.
pub(super) fn some(allowed: &[String]) -> String {
    const MOST: usize = 10;
    let short = |prefix: &String| prefix.chars().take(80).collect::<String>();
    let more = (allowed.len() > MOST).then(|| "…".to_owned());
    allowed.iter().take(MOST).map(short).chain(more).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Why::Kind(key) => write!(
                f,
                "volumeAttributes.{key} is not allowed: name a source of another kind, or ask the cluster's \
                 operator"
            ),
            Why::Elsewhere { asked, allowed } => write!(
                f,
                "volumeAttributes.flakeRef {asked:?} begins with none of {}: name a flake that does, or ask \
                 the cluster's operator",
                some(allowed)
            ),
            Why::Ambiguous { asked, reason } => write!(
                f,
                "volumeAttributes.flakeRef {asked:?} might lead elsewhere than it begins, since {reason}: \
                 write it plainly"
            ),
            Why::Writable => f.write_str(
                "a writable volume is not allowed: write readOnly: true in the pod's volumes[].csi, and an \
                 emptyDir where it writes",
            ),
            Why::Size { asked: None, most } => write!(
                f,
                "a writable volume needs volumeAttributes.size here: give it {most} bytes or less"
            ),
            Why::Size { asked: Some(asked), most } => write!(
                f,
                "volumeAttributes.size of {asked} bytes is more than the {most} allowed: give it less"
            ),
            Why::Private { path, keys } => write!(
                f,
                "volumeAttributes.storePath {path} is neither public ({}) nor what a source of this namespace \
                 has come to on this node: name it by its source (flakeRef, nixExpr), or ask the cluster's \
                 operator",
                signed_by(keys)
            ),
            Why::Unsigned { path, keys } => write!(
                f,
                "{path} of its closure is not signed as it must be ({}): name what comes signed from a cache, \
                 or ask the cluster's operator",
                signed_by(keys)
            ),
            Why::Count { most } => write!(
                f,
                "it has {most} volumes on this node already: the next one is mounted when one of them is gone"
            ),
        }
    }
}
