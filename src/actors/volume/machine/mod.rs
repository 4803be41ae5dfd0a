//! A volume's state machine. Pure: events in, effects out; no I/O, no clock, no actor.
//!
//! ```text
//! Absent → Resolving → Presenting → Mounted ⇄ Checking
//!             └────────────┴───────────┴──→ Removing → Absent
//! ```
//!
//! At most one effect is under way at a time, told by its [`Op`]; an event of an older one is
//! dropped, and what it brought (a lease on a view) is dropped with it.

mod rules;
mod types;

#[cfg(test)]
mod tests;

use rules::{conflict, overtake, removed, request_of};
pub use types::{Effect, Event, Op, Outcome, PresentFailed, Request, Seen, State};

use std::sync::Arc;

use super::VolumeError;
use crate::model::TargetPath;

#[derive(Debug)]
pub struct Machine<V, P, U> {
    state: State<V, P, U>,
    last_op: Op,
}

type Effects<V, P, U> = Vec<Effect<V, P, U>>;

impl<V: Clone, P, U> Machine<V, P, U> {
    pub fn new() -> Self {
        Self { state: State::Absent, last_op: 0 }
    }

    /// A volume of an earlier life; `verified`: it is whole.
    pub fn recovered(request: Arc<Request>, view: V, verified: bool) -> Self {
        Self { state: State::Mounted { request, view, verified }, last_op: 0 }
    }

    pub fn state(&self) -> &State<V, P, U> {
        &self.state
    }

    pub fn request(&self) -> Option<&Request> {
        request_of(&self.state)
    }

    fn next_op(&mut self) -> Op {
        self.last_op += 1;
        self.last_op
    }

    pub fn step(&mut self, event: Event<V, P, U>) -> Effects<V, P, U> {
        let state = std::mem::replace(&mut self.state, State::Absent);
        let (state, effects) = match event {
            Event::Publish { request, waiter } => self.publish(state, request, waiter),
            Event::Unpublish { target, waiter } => self.unpublish(state, target, waiter),
            Event::Resolved { op, result } => self.resolved(state, op, result),
            Event::Presented { op, result } => self.presented(state, op, result),
            Event::Checked { op, result } => self.checked(state, op, result),
            Event::Removed { op, result } => removed(state, op, result),
        };
        self.state = state;
        effects
    }

    fn publish(
        &mut self,
        state: State<V, P, U>,
        asked: Arc<Request>,
        waiter: P,
    ) -> (State<V, P, U>, Effects<V, P, U>) {
        if let Some(error) = conflict(&state, &asked) {
            let refused =
                Effect::AnswerPublish { waiters: vec![waiter], result: Err(error.into()) };
            return (state, vec![refused]);
        }
        match state {
            State::Absent => {
                let op = self.next_op();
                let effect = Effect::Resolve { op, request: asked.clone() };
                (State::Resolving { op, request: asked, waiters: vec![waiter] }, vec![effect])
            }
            State::Resolving { op, request, mut waiters } => {
                waiters.push(waiter);
                (State::Resolving { op, request, waiters }, vec![])
            }
            State::Presenting { op, request, view, mut waiters, overtaken } => {
                waiters.push(waiter);
                (State::Presenting { op, request, view, waiters, overtaken }, vec![])
            }
            State::Checking { op, request, view, verified, mut waiters, overtaken } => {
                waiters.push(waiter);
                (State::Checking { op, request, view, verified, waiters, overtaken }, vec![])
            }
            State::Mounted { request, view, verified } => {
                let op = self.next_op();
                let (asked, lease) = (request.clone(), view.clone());
                let effect = Effect::Check { op, request: asked, view: lease, verified };
                let (waiters, overtaken) = (vec![waiter], vec![]);
                (State::Checking { op, request, view, verified, waiters, overtaken }, vec![effect])
            }
            removing @ State::Removing { .. } => (removing, vec![]), // refused above
        }
    }

    fn unpublish(
        &mut self,
        state: State<V, P, U>,
        target: TargetPath,
        waiter: U,
    ) -> (State<V, P, U>, Effects<V, P, U>) {
        if let Some(known) = request_of(&state).filter(|r| r.target != target) {
            let error = VolumeError::OtherTarget { known: known.target.clone(), asked: target };
            let refused =
                Effect::AnswerUnpublish { waiters: vec![waiter], result: Err(error.into()) };
            return (state, vec![refused]);
        }
        match state {
            State::Absent => self.remove(None, target, vec![waiter]),
            State::Resolving { waiters, .. } => {
                let (state, removal) = self.remove(None, target, vec![waiter]);
                let mut effects = vec![overtake(waiters), Effect::Abandon];
                effects.extend(removal);
                (state, effects)
            }
            State::Presenting { op, request, view, waiters, mut overtaken } => {
                overtaken.push(waiter);
                let state = State::Presenting { op, request, view, waiters: vec![], overtaken };
                (state, vec![overtake(waiters)])
            }
            State::Checking { op, request, view, verified, waiters, mut overtaken } => {
                overtaken.push(waiter);
                let none = vec![];
                let state =
                    State::Checking { op, request, view, verified, waiters: none, overtaken };
                (state, vec![overtake(waiters)])
            }
            State::Mounted { request, view, .. } => {
                self.remove(Some((request, view)), target, vec![waiter])
            }
            State::Removing { op, volume, mut waiters } => {
                waiters.push(waiter);
                (State::Removing { op, volume, waiters }, vec![])
            }
        }
    }

    fn remove(
        &mut self,
        volume: Option<(Arc<Request>, V)>,
        target: TargetPath,
        waiters: Vec<U>,
    ) -> (State<V, P, U>, Effects<V, P, U>) {
        let op = self.next_op();
        let view = volume.as_ref().map(|(_, view)| view.clone());
        (State::Removing { op, volume, waiters }, vec![Effect::Remove { op, target, view }])
    }

    fn resolved(
        &mut self,
        state: State<V, P, U>,
        done: Op,
        result: Outcome<V>,
    ) -> (State<V, P, U>, Effects<V, P, U>) {
        match state {
            State::Resolving { op, request, waiters } if op == done => match result {
                Ok(view) => self.present(request, view, waiters),
                Err(error) => {
                    let answer = Effect::AnswerPublish { waiters, result: Err(error) };
                    (State::Absent, vec![answer, Effect::End])
                }
            },
            other => (other, vec![]),
        }
    }

    fn present(
        &mut self,
        request: Arc<Request>,
        view: V,
        waiters: Vec<P>,
    ) -> (State<V, P, U>, Effects<V, P, U>) {
        let op = self.next_op();
        let effect = Effect::Present { op, request: request.clone(), view: view.clone() };
        let overtaken = vec![];
        (State::Presenting { op, request, view, waiters, overtaken }, vec![effect])
    }

    fn presented(
        &mut self,
        state: State<V, P, U>,
        done: Op,
        result: Result<(), PresentFailed>,
    ) -> (State<V, P, U>, Effects<V, P, U>) {
        match state {
            State::Presenting { op, request, view, waiters, overtaken } if op == done => {
                if !overtaken.is_empty() {
                    let target = request.target.clone();
                    return self.remove(Some((request, view)), target, overtaken);
                }
                match result {
                    Ok(()) => {
                        let answer = Effect::AnswerPublish { waiters, result: Ok(()) };
                        (State::Mounted { request, view, verified: true }, vec![answer])
                    }
                    Err(PresentFailed { error, clean }) => {
                        let answer = Effect::AnswerPublish { waiters, result: Err(error) };
                        if clean {
                            (State::Absent, vec![answer, Effect::End])
                        } else {
                            (State::Mounted { request, view, verified: false }, vec![answer])
                        }
                    }
                }
            }
            other => (other, vec![]),
        }
    }

    fn checked(
        &mut self,
        state: State<V, P, U>,
        done: Op,
        result: Outcome<Seen>,
    ) -> (State<V, P, U>, Effects<V, P, U>) {
        match state {
            State::Checking { op, request, view, verified, waiters, overtaken } if op == done => {
                if !overtaken.is_empty() {
                    let target = request.target.clone();
                    return self.remove(Some((request, view)), target, overtaken);
                }
                match result {
                    Ok(Seen::Whole) => {
                        let answer = Effect::AnswerPublish { waiters, result: Ok(()) };
                        (State::Mounted { request, view, verified: true }, vec![answer])
                    }
                    // The volume keeps its first resolution.
                    Ok(Seen::Nothing) => self.present(request, view, waiters),
                    // What there is of it goes, and the next publish begins anew.
                    Ok(Seen::Refused(error)) => {
                        let answer = Effect::AnswerPublish { waiters, result: Err(error) };
                        let target = request.target.clone();
                        let volume = Some((request, view));
                        let (state, mut effects) = self.remove(volume, target, vec![]);
                        effects.insert(0, answer);
                        (state, effects)
                    }
                    // Nothing was seen, and nothing changed.
                    Err(error) => {
                        let answer = Effect::AnswerPublish { waiters, result: Err(error) };
                        (State::Mounted { request, view, verified }, vec![answer])
                    }
                }
            }
            other => (other, vec![]),
        }
    }
}
