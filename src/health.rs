//! What the process's parts say of themselves: starting, ready or sick.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// One part's word, or all parts' together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Starting,
    Ready,
    Sick(String),
}

/// The parts that must be ready before the node is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Condition>>>);

impl Health {
    /// A health that waits for each of these parts.
    pub fn waiting_for(parts: &[&'static str]) -> Self {
        let starting = parts.iter().map(|part| (*part, Condition::Starting)).collect();
        Self(Arc::new(Mutex::new(starting)))
    }

    pub fn set(&self, part: &'static str, condition: &Condition) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if parts.insert(part, condition.clone()).as_ref() != Some(condition) {
            tracing::info!(part, ?condition, "condition changed");
        }
    }

    /// Whether all parts but this one are ready.
    pub fn is_ready_but_for(&self, part: &str) -> bool {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().all(|(name, c)| *name == part || *c == Condition::Ready)
    }

    /// Sick if any part is, else starting if any part is; the reason names the parts.
    pub fn overall(&self) -> (Condition, String) {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sick: Vec<String> = parts
            .iter()
            .filter_map(|(part, c)| match c {
                Condition::Sick(reason) => Some(format!("{part}: {reason}")),
                Condition::Starting | Condition::Ready => None,
            })
            .collect();
        if !sick.is_empty() {
            let reason = sick.join("; ");
            return (Condition::Sick(reason.clone()), reason);
        }
        let starting: Vec<&str> = parts
            .iter()
            .filter(|(_, c)| **c == Condition::Starting)
            .map(|(part, _)| *part)
            .collect();
        if starting.is_empty() {
            (Condition::Ready, String::new())
        } else {
            (Condition::Starting, format!("waiting for {}", starting.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sick_beats_starting_beats_ready() {
        let health = Health::waiting_for(&["a", "b"]);
        assert_eq!(health.overall(), (Condition::Starting, "waiting for a, b".into()));
        health.set("a", &Condition::Ready);
        assert_eq!(health.overall(), (Condition::Starting, "waiting for b".into()));
        health.set("b", &Condition::Ready);
        assert_eq!(health.overall().0, Condition::Ready);
        health.set("a", &Condition::Sick("gone".into()));
        assert_eq!(health.overall().1, "a: gone");
    }
}
