//! What can go wrong with a call to the API server, by what the caller can do.

use kube::core::Status;

/// Each names the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// It does not answer, or not in time: try again later.
    #[error("can't {what}: the API server does not answer: {reason}")]
    Down { what: &'static str, reason: String },
    /// A missing permission: only an operator can help.
    #[error("can't {what}: the API server refuses: {reason}: see the ClusterRole in deploy/")]
    Forbidden { what: &'static str, reason: String },
    /// What the call is about is no more.
    #[error("can't {what}: it is gone: {reason}")]
    Gone { what: &'static str, reason: String },
    /// Somebody changed it in between: read it again.
    #[error("can't {what}: it was changed in between: {reason}")]
    Conflict { what: &'static str, reason: String },
    /// The request itself is at fault.
    #[error("can't {what}: {reason}")]
    Invalid { what: &'static str, reason: String },
}

impl ApiError {
    /// The closed label of metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Down { .. } => "down",
            Self::Forbidden { .. } => "forbidden",
            Self::Gone { .. } => "gone",
            Self::Conflict { .. } => "conflict",
            Self::Invalid { .. } => "invalid",
        }
    }

    /// From kube's error, by the status that the API server gave.
    pub(super) fn new(what: &'static str, error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            let reason = with_causes(error);
            return Self::Down { what, reason };
        };
        let reason = status.message.clone();
        match status.code {
            403 if is_terminating(status) => Self::Gone { what, reason },
            401 | 403 => Self::Forbidden { what, reason },
            404 | 410 => Self::Gone { what, reason },
            409 => Self::Conflict { what, reason },
            // "Too many requests", and whatever is the server's own trouble.
            408 | 429 | 500.. => Self::Down { what, reason },
            _ => Self::Invalid { what, reason },
        }
    }
}

/// The namespace is being deleted: nothing new may be in it. Its status is that of a missing
/// permission (the admission plugin NamespaceLifecycle).
fn is_terminating(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// An error with what caused it: hyper's own words are "client error (Connect)".
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
