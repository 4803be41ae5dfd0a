//! Whose evaluation it is, and what it may take.

use std::time::Duration;

use crate::model::{Bound, Tenant};

use super::{Limit, RealiseError, Step};

/// A tenant, with the limits of its own; of each of them and the node's the smaller one counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asker {
    pub tenant: Tenant,
    /// Of one evaluation, with the sources that it fetches.
    pub time: Option<Bound<Duration>>,
    /// Bytes of private memory of one process.
    pub memory: Option<Bound<u64>>,
}

impl From<Tenant> for Asker {
    fn from(tenant: Tenant) -> Self {
        Self { tenant, time: None, memory: None }
    }
}

impl Asker {
    /// The time that counts, and the rule if it is the tenant's.
    pub(super) fn time(&self, nodes: Limit) -> (Limit, Option<String>) {
        let own = self.time.as_ref();
        match own.filter(|own| nodes.most.is_zero() || own.most < nodes.most) {
            Some(own) => (Limit { most: own.most, ..nodes }, Some(own.rule.clone())),
            None => (nodes, None),
        }
    }

    /// Likewise.
    pub(super) fn memory(&self, nodes: u64) -> Memory {
        match self.memory.as_ref().filter(|own| own.most < nodes) {
            Some(own) => Memory { most: own.most, rule: Some(own.rule.clone()) },
            None => Memory { most: nodes, rule: None },
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts() {
        let second = Duration::from_secs(1);
        let asker = Asker {
            time: Some(Bound { most: 5 * second, rule: "t".to_owned() }),
            memory: Some(Bound { most: 500, rule: "m".to_owned() }),
            ..Asker::from(Tenant::local())
        };
        let time = |most| {
            let (limit, rule) = asker.time(Limit::new("--eval-timeout", most));
            (limit.most, rule)
        };
        let own = (5 * second, Some("t".to_owned()));
        assert_eq!(time(6 * second), own);
        assert_eq!(time(5 * second), (5 * second, None));
        assert_eq!(time(4 * second), (4 * second, None));
        // Zero is no limit.
        assert_eq!(time(Duration::ZERO), own);
        let rule = Some("m".to_owned());
        assert_eq!(asker.memory(501), Memory { most: 500, rule });
        assert_eq!(asker.memory(500), Memory { most: 500, rule: None });
        assert_eq!(Asker::from(Tenant::local()).memory(7), Memory { most: 7, rule: None });
    }
}
