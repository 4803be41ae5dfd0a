//! What the policy leaves each tenant of the node's slots.

use crate::actors::policy::PolicyHandle;
use crate::model::{Bound, Limits, Tenant};
use crate::nix::Stage;

use super::slots::{Place, Slots};

/// Slots of which a tenant holds as many as the policy says.
pub(super) fn slots(
    count: usize,
    policy: &PolicyHandle,
    of: fn(&Limits) -> Option<Bound<u32>>,
) -> Slots {
    let policy = policy.clone();
    Slots::new(count, move |tenant| of(&policy.limits(tenant)?).map(|bound| bound.most))
}

/// For people: `waiting for a build slot, 3rd of 7`, with the rule where it is the tenant's own limit.
pub(super) fn waiting(
    policy: &PolicyHandle,
    tenant: &Tenant,
    queued: Stage,
    place: Place,
) -> String {
    let builds = queued == Stage::QueuedBuild;
    let what = if builds { "a build" } else { "an evaluation" };
    let limits = policy.limits(tenant).filter(|_| place.at_limit);
    let bound =
        limits.and_then(|limits| if builds { limits.builds() } else { limits.evaluations() });
    let why = bound.map(|Bound { most, rule }| format!(" ({rule} of the policy: {most} at once)"));
    format!("waiting for {what} slot, {place}{}", why.unwrap_or_default())
}
