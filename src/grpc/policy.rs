//! The policy, as people are told.

use super::proto::admin::{PolicyRequest, PolicyResponse};
use crate::actors::builds::BuildsHandle;
use crate::actors::policy::{Known, PolicyHandle};
use crate::model::Tenant;

pub(super) fn policy(
    handle: &PolicyHandle,
    builds: &BuildsHandle,
    asked: &PolicyRequest,
) -> PolicyResponse {
    let report = handle.report();
    let awaited = match report.known {
        Known::Awaited { reason } => reason,
        Known::None | Known::Policy(_) => String::new(),
    };
    let fetch_from = handle.fetch_from(&Tenant::namespace(&asked.namespace));
    let unknown = fetch_from.map(|from| builds.unknown_substituters(&from));
    PolicyResponse {
        unknown_substituters: unknown.unwrap_or_default(),
        text: report.text,
        origin: report.origin,
        refused: report.refused.unwrap_or_default(),
        awaited,
    }
}
