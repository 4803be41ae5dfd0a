//! What the process's parts say of themselves: starting, ready or sick.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use prometheus::{IntGaugeVec, Opts};
use tokio::sync::watch;

use crate::metrics::register;

/// By which an alert sees what `/readyz` says.
static READY: LazyLock<IntGaugeVec> = LazyLock::new(|| {
    let help = "Whether a part that must be ready is, or the process serves without it.";
    register(IntGaugeVec::new(Opts::new("nixcsi_ready", help), &["part"]))
});

pub(crate) fn register_metrics() {
    LazyLock::force(&READY);
}

fn show(part: &str, condition: &Condition) {
    READY.with_label_values(&[part]).set(condition.serves().into());
}

/// One part's word, or all parts' together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    Starting,
    Ready,
    /// The process serves, without this part.
    Impaired(String),
    Sick(String),
}

impl Condition {
    /// Its name on the wire and in reports, without the reason.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Impaired(_) => "impaired",
            Self::Sick(_) => "sick",
        }
    }

    fn serves(&self) -> bool {
        match self {
            Self::Ready | Self::Impaired(_) => true,
            Self::Starting | Self::Sick(_) => false,
        }
    }

    fn sickness(&self) -> Option<&String> {
        match self {
            Self::Sick(reason) => Some(reason),
            Self::Starting | Self::Ready | Self::Impaired(_) => None,
        }
    }

    fn impairment(&self) -> Option<&String> {
        match self {
            Self::Impaired(reason) => Some(reason),
            Self::Starting | Self::Ready | Self::Sick(_) => None,
        }
    }
}

/// The parts that must be ready before the node is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<watch::Sender<BTreeMap<&'static str, Condition>>>);

impl Health {
    /// A health that waits for each of these parts.
    pub fn waiting_for(parts: &[&'static str]) -> Self {
        for part in parts {
            show(part, &Condition::Starting);
        }
        let starting = parts.iter().map(|part| (*part, Condition::Starting)).collect();
        Self(Arc::new(watch::Sender::new(starting)))
    }

    pub fn set(&self, part: &'static str, condition: &Condition) {
        let is_news = self.0.send_if_modified(|parts| {
            show(part, condition);
            parts.insert(part, condition.clone()).as_ref() != Some(condition)
        });
        if is_news {
            tracing::info!(part, ?condition, "condition changed");
        }
    }

    /// Waits until this part is ready.
    pub async fn until_ready(&self, part: &str) {
        let is_ready = |parts: &BTreeMap<_, _>| parts.get(part) == Some(&Condition::Ready);
        // The sender is ours, so the channel is never closed.
        drop(self.0.subscribe().wait_for(is_ready).await);
    }

    /// Whether all parts but this one serve, or are not needed for it.
    pub fn is_ready_but_for(&self, part: &str) -> bool {
        let parts = self.0.borrow();
        parts.iter().all(|(name, c)| *name == part || c.serves())
    }

    /// Each part's word.
    pub fn each(&self) -> Vec<(&'static str, Condition)> {
        self.0.borrow().iter().map(|(part, condition)| (*part, condition.clone())).collect()
    }

    /// Sick if any part is, else starting if any part is, else impaired if any part is; the reason names
    /// the parts.
    pub fn overall(&self) -> (Condition, String) {
        let parts = self.0.borrow();
        let told = |wanted: fn(&Condition) -> Option<&String>| {
            let each = parts.iter().filter_map(|(part, c)| Some(format!("{part}: {}", wanted(c)?)));
            Some(each.collect::<Vec<_>>().join("; ")).filter(|reason| !reason.is_empty())
        };
        if let Some(reason) = told(Condition::sickness) {
            return (Condition::Sick(reason.clone()), reason);
        }
        let starting: Vec<&str> = parts
            .iter()
            .filter(|(_, c)| **c == Condition::Starting)
            .map(|(part, _)| *part)
            .collect();
        if !starting.is_empty() {
            return (Condition::Starting, format!("waiting for {}", starting.join(", ")));
        }
        match told(Condition::impairment) {
            Some(reason) => (Condition::Impaired(reason.clone()), reason),
            None => (Condition::Ready, String::new()),
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
        health.set("a", &Condition::Impaired("gone".into()));
        assert_eq!(health.overall().0, Condition::Impaired("a: gone".into()));
        assert!(health.is_ready_but_for("b"));
    }

    #[test]
    fn a_gauge_shows_whether_a_part_serves() {
        let shown = || READY.with_label_values(&["shown"]).get();
        let health = Health::waiting_for(&["shown"]);
        assert_eq!(shown(), 0);
        for (condition, value) in [
            (Condition::Ready, 1),
            (Condition::Sick("gone".into()), 0),
            (Condition::Impaired("partly".into()), 1),
            (Condition::Starting, 0),
        ] {
            health.set("shown", &condition);
            assert_eq!(shown(), value, "{condition:?}");
        }
    }

    #[tokio::test]
    async fn who_waits_for_a_part_goes_on_when_it_is_ready() {
        let health = Health::waiting_for(&["a", "b"]);
        let waits = health.clone();
        let mut waits = Box::pin(waits.until_ready("a"));
        assert!(futures::poll!(&mut waits).is_pending());
        health.set("b", &Condition::Ready);
        health.set("a", &Condition::Sick("gone".into()));
        assert!(futures::poll!(&mut waits).is_pending());
        health.set("a", &Condition::Ready);
        waits.await;
    }
}
