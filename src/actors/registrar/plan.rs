//! When the socket is opened, left alone, or opened anew. Pure: the time is told.

use std::time::Duration;

use tokio::time::Instant;

use super::Notice;

/// A kubelet that runs finds a new socket in well under a second; one that starts finds all that
/// are there. So this is long, and the wait doubles: it only helps where a file event was lost.
const UNHEARD: Duration = Duration::from_secs(30);
const UNHEARD_MAX: Duration = Duration::from_secs(300);
/// After a refusal, doubling.
const REFUSED: Duration = Duration::from_secs(1);
const REFUSED_MAX: Duration = Duration::from_secs(60);
/// How often in a row the API server must miss the driver in CSINode: the kubelet writes it a moment
/// after it has told the driver.
const MISSED: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        open_at: Instant,
    },
    /// Open, and not registered.
    Open {
        since: Instant,
    },
    Registered {
        missed: u32,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Open,
    /// Take the socket away; it is opened again by a later step.
    Close {
        why: String,
    },
}

#[derive(Debug)]
pub(super) struct Plan {
    state: State,
    unheard: Duration,
    refused: Duration,
}

impl Plan {
    pub(super) fn new(now: Instant) -> Self {
        Self { state: State::Closed { open_at: now }, unheard: UNHEARD, refused: REFUSED }
    }

    pub(super) fn is_registered(&self) -> bool {
        matches!(self.state, State::Registered { .. })
    }

    pub(super) fn opened(&mut self, now: Instant) {
        self.state = State::Open { since: now };
    }

    pub(super) fn open_failed(&mut self, now: Instant) {
        self.state = State::Closed { open_at: now + self.after_refusal() };
    }

    pub(super) fn heard(&mut self, notice: &Notice, now: Instant) -> Step {
        match notice {
            Notice::Asked => Step::Nothing,
            Notice::Registered => {
                self.state = State::Registered { missed: 0 };
                (self.unheard, self.refused) = (UNHEARD, REFUSED);
                Step::Nothing
            }
            Notice::Refused(reason) => {
                self.state = State::Closed { open_at: now + self.after_refusal() };
                Step::Close { why: format!("the kubelet refused the driver: {reason}") }
            }
        }
    }

    /// `is_there`: whether the open socket is still where the kubelet looks. `is_listed`: whether
    /// CSINode has the driver, if that could be learnt.
    pub(super) fn tick(&mut self, now: Instant, is_there: bool, is_listed: Option<bool>) -> Step {
        match &mut self.state {
            State::Closed { open_at } if now >= *open_at => Step::Open,
            State::Open { .. } | State::Registered { .. } if !is_there => {
                self.close(now, "somebody took it away")
            }
            State::Open { since } if now - *since >= self.unheard => {
                self.unheard = (self.unheard * 2).min(UNHEARD_MAX);
                self.close(now, "the kubelet has not registered the driver")
            }
            State::Closed { .. } | State::Open { .. } => Step::Nothing,
            State::Registered { missed } => {
                match is_listed {
                    Some(true) => *missed = 0,
                    Some(false) => *missed += 1,
                    None => {}
                }
                if *missed < MISSED {
                    return Step::Nothing;
                }
                self.close(now, "the kubelet has forgotten the driver: CSINode does not list it")
            }
        }
    }

    fn close(&mut self, now: Instant, why: &str) -> Step {
        self.state = State::Closed { open_at: now };
        Step::Close { why: why.to_owned() }
    }

    fn after_refusal(&mut self) -> Duration {
        let wait = self.refused;
        self.refused = (wait * 2).min(REFUSED_MAX);
        wait
    }
}
