//! What is told to a pod's author whom the policy refuses: the field, its value, the rule, the way out.

use std::fmt;

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
}

impl Refusal {
    pub(super) fn new(rule: String, why: Why) -> Self {
        Self { rule, why }
    }

    /// All that [`Self::kind`] gives.
    pub const KINDS: [&str; 6] =
        ["storePath", "flakeRef", "nixExpr", "writable", "size", "volumes"];

    /// What it is about, for metrics.
    pub fn kind(&self) -> &'static str {
        match self.why {
            Why::Kind(key) => key,
            Why::Elsewhere { .. } | Why::Ambiguous { .. } => "flakeRef",
            Why::Writable => "writable",
            Why::Size { .. } => "size",
            Why::Count { .. } => "volumes",
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

/// The first ones.
fn some_of(allowed: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> =
        allowed.iter().take(SHOWN).map(|one| one.chars().take(100).collect()).collect();
    let more = allowed.len().saturating_sub(SHOWN);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &rest
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
                some_of(allowed)
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
            Why::Count { most } => write!(
                f,
                "it has {most} volumes on this node already: the next one is mounted when one of them is gone"
            ),
        }
    }
}
