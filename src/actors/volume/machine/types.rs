//! States, events and effects.

use std::fmt;
use std::sync::Arc;

use crate::actors::volume::VolumeError;
use crate::model::{TargetPath, VolumeSpec};

/// Numbers the effects of one volume.
pub type Op = u64;
pub type Outcome<T> = Result<T, Arc<VolumeError>>;

/// What is to be published where.
#[derive(Debug, Clone)]
pub struct Request {
    pub spec: VolumeSpec,
    pub target: TargetPath,
}

/// `V` is a lease on a view, `P` and `U` are waiting publishes and unpublishes.
#[derive(Debug)]
pub enum State<V, P, U> {
    Absent,
    /// Finding the closure: evaluating, fetching, building, making the view.
    Resolving {
        op: Op,
        request: Arc<Request>,
        waiters: Vec<P>,
    },
    /// Writing the record and mounting. `overtaken`: unpublishes that wait for its end.
    Presenting {
        op: Op,
        request: Arc<Request>,
        view: V,
        waiters: Vec<P>,
        overtaken: Vec<U>,
    },
    /// `verified` is false after an effect failed half-way: the next publish looks again, and what is not
    /// whole is asked of the policy before it goes on.
    Mounted {
        request: Arc<Request>,
        view: V,
        verified: bool,
    },
    /// A repeated publish looks whether the mount is still there.
    Checking {
        op: Op,
        request: Arc<Request>,
        view: V,
        verified: bool,
        waiters: Vec<P>,
        overtaken: Vec<U>,
    },
    /// `volume` is what it was before, if it was known.
    Removing {
        op: Op,
        volume: Option<(Arc<Request>, V)>,
        waiters: Vec<U>,
    },
}

#[derive(Debug)]
pub enum Event<V, P, U> {
    Publish { request: Arc<Request>, waiter: P },
    Unpublish { target: TargetPath, waiter: U },
    Resolved { op: Op, result: Outcome<V> },
    Presented { op: Op, result: Result<(), PresentFailed> },
    Checked { op: Op, result: Outcome<Seen> },
    Removed { op: Op, result: Outcome<()> },
}

/// What is at the volume's target.
#[derive(Debug)]
pub enum Seen {
    /// The whole volume.
    Whole,
    /// Nothing, or a part of it.
    Nothing,
    /// The same, and it may not be completed.
    Refused(Arc<VolumeError>),
}

/// A failed mount; `clean` tells whether everything that it had made is gone again.
#[derive(Debug)]
pub struct PresentFailed {
    pub error: Arc<VolumeError>,
    pub clean: bool,
}

impl fmt::Display for PresentFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

#[derive(Debug)]
pub enum Effect<V, P, U> {
    Resolve {
        op: Op,
        request: Arc<Request>,
    },
    /// Nobody waits for the resolution any more.
    Abandon,
    Present {
        op: Op,
        request: Arc<Request>,
        view: V,
    },
    /// `verified`: it was whole when it was looked at last.
    Check {
        op: Op,
        request: Arc<Request>,
        view: V,
        verified: bool,
    },
    Remove {
        op: Op,
        target: TargetPath,
        view: Option<V>,
    },
    AnswerPublish {
        waiters: Vec<P>,
        result: Outcome<()>,
    },
    AnswerUnpublish {
        waiters: Vec<U>,
        result: Outcome<()>,
    },
    /// The volume is gone; so may its actor be.
    End,
}
