//! What everybody reads.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;

use crate::actors::metrics;
use crate::model::{FetchFrom, Limits, Policy, Refusal, Rules, Tenant, VolumeSpec};

/// What is known of the policy.
#[derive(Debug, Clone, Default)]
pub enum Known {
    /// There is none: everything is allowed.
    #[default]
    None,
    /// It can't be told whether there is one.
    Awaited {
        reason: String,
    },
    Policy(Arc<Policy>),
}

/// For people.
#[derive(Debug, Clone, Default)]
pub struct PolicyReport {
    pub known: Known,
    /// Of what counts; empty if nothing does.
    pub text: String,
    /// Where it comes from.
    pub origin: String,
    /// Why what is there now does not count.
    pub refused: Option<String>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum PolicyError {
    #[error("{}", .refusal.text(.namespace))]
    Refused { namespace: String, refusal: Refusal },
    #[error("the policy is not known, so that nobody may mount: {reason}")]
    Awaited { reason: String },
    #[error("the policy shows less of the store than when the source was resolved")]
    Narrowed,
}

/// Cheap to clone. Asks nobody.
#[derive(Debug, Clone)]
pub struct PolicyHandle {
    report: watch::Receiver<PolicyReport>,
    /// Volumes by namespace.
    counts: Arc<DashMap<String, u32>>,
}

/// A volume that counts for its namespace until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    counts: Arc<DashMap<String, u32>>,
    namespace: String,
}

impl PolicyHandle {
    pub(super) fn new(report: watch::Receiver<PolicyReport>) -> Self {
        Self { report, counts: Arc::default() }
    }

    /// Nobody refuses anything.
    pub fn open() -> Self {
        Self::new(watch::channel(PolicyReport::default()).1)
    }

    pub(super) fn known(&self) -> Known {
        self.report.borrow().known.clone()
    }

    pub fn report(&self) -> PolicyReport {
        self.report.borrow().clone()
    }

    /// Ends at a change after this call; never where nothing can change.
    pub fn changes(&self) -> impl Future<Output = ()> + use<> {
        let mut report = self.report.clone();
        report.mark_unchanged();
        async move {
            if report.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What a namespace's evaluations and builds may take; `None`: nobody says, or they are a person's.
    pub fn limits(&self, tenant: &Tenant) -> Option<Limits> {
        self.of(tenant, |rules| rules.limits().clone())
    }

    /// Whom the node asks for a namespace's closures; `None`: all that it has.
    pub fn fetch_from(&self, tenant: &Tenant) -> Option<FetchFrom> {
        self.of(tenant, Rules::fetch_from).flatten()
    }

    fn of<T>(&self, tenant: &Tenant, ask: impl FnOnce(&Rules) -> T) -> Option<T> {
        let namespace = tenant.as_namespace()?;
        match &self.report.borrow().known {
            Known::Policy(policy) => Some(ask(policy.rules(namespace))),
            Known::None | Known::Awaited { .. } => None,
        }
    }

    /// Whether the pod may have the volume now; a request without a pod is a person's, who is the operator.
    pub fn check(&self, spec: &VolumeSpec) -> Result<(), PolicyError> {
        let Some(pod) = &spec.pod else { return Ok(()) };
        match &self.report.borrow().known {
            Known::None => Ok(()),
            Known::Awaited { reason } => Err(PolicyError::Awaited { reason: reason.clone() }),
            Known::Policy(policy) => {
                let checked = policy.rules(&pod.namespace).check(spec);
                checked.map_err(|refusal| refused(&pod.namespace, refusal))
            }
        }
    }

    /// The same for a volume that is not there yet, and counts from now on. `None`: a person's.
    pub fn admit(&self, spec: &VolumeSpec) -> Result<Option<Admitted>, PolicyError> {
        self.check(spec)?;
        let Some(pod) = &spec.pod else { return Ok(None) };
        // Held: two at once must not both be the last that may come.
        let entry = self.counts.entry(pod.namespace.clone());
        let count = match &entry {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(_) => 0,
        };
        if let Known::Policy(policy) = &self.report.borrow().known {
            let checked = policy.rules(&pod.namespace).check_count(count);
            checked.map_err(|refusal| refused(&pod.namespace, refusal))?;
        }
        entry.insert(count + 1);
        Ok(Some(Admitted { counts: self.counts.clone(), namespace: pod.namespace.clone() }))
    }

    /// A volume that is there, whatever the policy says by now.
    pub fn count(&self, spec: &VolumeSpec) -> Option<Admitted> {
        let namespace = spec.pod.as_ref()?.namespace.clone();
        *self.counts.entry(namespace.clone()).or_default() += 1;
        Some(Admitted { counts: self.counts.clone(), namespace })
    }
}

pub(super) fn refused(namespace: &str, refusal: Refusal) -> PolicyError {
    metrics::POLICY_REFUSALS.with_label_values(&[refusal.kind()]).inc();
    PolicyError::Refused { namespace: namespace.to_owned(), refusal }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(mut count) = self.counts.get_mut(&self.namespace) {
            *count = count.saturating_sub(1);
        }
        self.counts.remove_if(&self.namespace, |_, count| *count == 0);
    }
}
