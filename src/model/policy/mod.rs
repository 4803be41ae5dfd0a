//! What each namespace may ask for, as the operator wrote it down.
//!
//! ```yaml
//! preset: strict                # or open: what counts where nothing below says otherwise
//! default:                      # all namespaces
//!   flakeRef: ["github:example/"]
//! namespaces:                   # some of them; an exact name wins over a pattern, a longer one over a shorter
//!   ci: {nixExpr: true}
//!   "team-*": {writable: true, maxSize: 2Gi}
//! ```

mod document;
mod limits;
mod reference;
mod refusal;
mod rules;
mod substituters;

use std::collections::BTreeMap;

pub use document::InvalidPolicy;
pub use limits::{Bound, Limits, MIN_EVALUATION_MEMORY};
pub use refusal::Refusal;
pub use rules::Rules;
pub use substituters::FetchFrom;

/// A valid policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    default: Rules,
    exact: BTreeMap<String, Rules>,
    /// What names begin with, longest first.
    patterns: Vec<(String, Rules)>,
}

impl Policy {
    /// An error names the key, its value and what would be right.
    pub fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        document::parse(text)
    }

    pub fn rules(&self, namespace: &str) -> &Rules {
        let of_pattern = || self.patterns.iter().find(|(start, _)| namespace.starts_with(start));
        let exact = self.exact.get(namespace);
        exact.or_else(|| of_pattern().map(|(_, rules)| rules)).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests;
