//! Transitions and questions that need no new operation.

use super::{Effect, Effects, Op, Outcome, Request, State};
use crate::actors::volume::VolumeError;

pub(super) fn removed<V, P, U>(
    state: State<V, P, U>,
    done: Op,
    result: Outcome<()>,
) -> (State<V, P, U>, Effects<V, P, U>) {
    match state {
        State::Removing { op, volume, waiters } if op == done => {
            let failed = result.is_err();
            let answer = Effect::AnswerUnpublish { waiters, result };
            match volume {
                // Nothing is lost by a failed removal: the volume is what it was.
                Some((request, view)) if failed => {
                    (State::Mounted { request, view, verified: false }, vec![answer])
                }
                _ => (State::Absent, vec![answer, Effect::End]),
            }
        }
        other => (other, vec![]),
    }
}

pub(super) fn overtake<V, P, U>(waiters: Vec<P>) -> Effect<V, P, U> {
    Effect::AnswerPublish { waiters, result: Err(VolumeError::Overtaken.into()) }
}

pub(super) fn request_of<V, P, U>(state: &State<V, P, U>) -> Option<&Request> {
    match state {
        State::Absent => None,
        State::Resolving { request, .. }
        | State::Presenting { request, .. }
        | State::Mounted { request, .. }
        | State::Checking { request, .. } => Some(request),
        State::Removing { volume, .. } => volume.as_ref().map(|(request, _)| &**request),
    }
}

/// Why this publish can't be served in this state (CSI 1.12, NodePublishVolume errors).
pub(super) fn conflict<V, P, U>(state: &State<V, P, U>, asked: &Request) -> Option<VolumeError> {
    let leaving = match state {
        State::Removing { .. } => true,
        State::Presenting { overtaken, .. } | State::Checking { overtaken, .. } => {
            !overtaken.is_empty()
        }
        State::Absent | State::Resolving { .. } | State::Mounted { .. } => false,
    };
    if leaving {
        return Some(VolumeError::Removing);
    }
    let known = request_of(state)?;
    if known.target != asked.target {
        let (known, asked) = (known.target.clone(), asked.target.clone());
        return Some(VolumeError::OtherTarget { known, asked });
    }
    (!known.spec.is_same_request(&asked.spec)).then_some(VolumeError::OtherSpec)
}
