//! What an evaluation may take: of each of the node's limits and its tenant's the smaller one counts.

use crate::model::Limits;

use super::{Limit, RealiseError, Step};

/// The time that counts, and the rule if it is the tenant's.
pub(super) fn time(own: Option<&Limits>, nodes: Limit) -> (Limit, Option<String>) {
    let own = own.and_then(Limits::time);
    match own.filter(|own| nodes.most.is_zero() || own.most < nodes.most) {
        Some(own) => (Limit { most: own.most, ..nodes }, Some(own.rule)),
        None => (nodes, None),
    }
}

/// Likewise.
pub(super) fn memory(own: Option<&Limits>, nodes: u64) -> Memory {
    match own.and_then(Limits::memory).filter(|own| own.most < nodes) {
        Some(own) => Memory { most: own.most, rule: Some(own.rule) },
        None => Memory { most: nodes, rule: None },
    }
}

/// Bytes that an evaluation may have, and the rule of the policy if that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) most: u64,
    pub(super) rule: Option<String>,
}

impl Memory {
    pub(super) fn exceeded(&self) -> RealiseError {
        let raised = match &self.rule {
            Some(rule) => format!("{rule} of the policy"),
            None => "--eval-memory".to_owned(),
        };
        RealiseError::Refused {
            step: Step::Evaluate,
            cause: format!("it needs more than {} MiB of memory", self.most >> 20),
            hint: Some(format!("the operator raises {raised}")),
        }
    }
}

/// What a tenant's evaluations write takes more than `most` bytes on disk.
pub(super) fn disk_exceeded(most: u64) -> RealiseError {
    RealiseError::Refused {
        step: Step::Evaluate,
        cause: format!(
            "what evaluations of its namespace fetch and make takes more than {} MiB on disk",
            most >> 20
        ),
        hint: Some("the operator raises --eval-disk".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Policy;

    #[test]
    fn the_smaller_limit_counts() {
        let second = Duration::from_secs(1);
        let text = "preset: open\ndefault: {evaluationTime: 5s, evaluationMemory: 500Mi}";
        let policy = Policy::parse(text).unwrap();
        let own = Some(policy.rules("x").limits());
        let time = |most| {
            let (limit, rule) = time(own, Limit::new("--eval-timeout", most));
            (limit.most, rule)
        };
        let tenants = (5 * second, Some("default.evaluationTime".to_owned()));
        assert_eq!(time(6 * second), tenants);
        assert_eq!(time(5 * second), (5 * second, None));
        assert_eq!(time(4 * second), (4 * second, None));
        // Zero is no limit.
        assert_eq!(time(Duration::ZERO), tenants);
        let most = 500 << 20;
        let rule = Some("default.evaluationMemory".to_owned());
        assert_eq!(memory(own, most + 1), Memory { most, rule });
        assert_eq!(memory(own, most), Memory { most, rule: None });
        assert_eq!(memory(None, 7), Memory { most: 7, rule: None });
    }
}
