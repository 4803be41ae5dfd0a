//! The policy, as people are told.

use super::proto::admin::PolicyResponse;
use crate::actors::policy::{Known, PolicyHandle};

pub(super) fn policy(handle: &PolicyHandle) -> PolicyResponse {
    let report = handle.report();
    let awaited = match report.known {
        Known::Awaited { reason } => reason,
        Known::None | Known::Policy(_) => String::new(),
    };
    PolicyResponse {
        text: report.text,
        origin: report.origin,
        refused: report.refused.unwrap_or_default(),
        awaited,
    }
}
