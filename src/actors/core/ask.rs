//! Sending messages, and replying later.

use actix::{Addr, Handler, MailboxError, Message, ResponseFuture};
use tokio::sync::oneshot;

use super::{Supervised, metrics};

/// The other side ended, or panicked over this very message, before it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {actor} actor ended before it answered")]
pub struct ActorGone {
    pub actor: &'static str,
}

/// Sends a message and waits for the answer. Ask in one direction only:
/// grpc → volumes → volume → builds and views.
pub async fn ask<A, M>(to: &Addr<A>, message: M) -> Result<M::Result, ActorGone>
where
    A: Supervised + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    // A timeout belongs to the caller that has a reason for one.
    to.send(message).await.map_err(|e| match e {
        MailboxError::Closed | MailboxError::Timeout => ActorGone { actor: A::KIND },
    })
}

/// Sends an event that needs no answer. An event to an ended actor is counted and dropped:
/// whoever ended no longer cares.
pub fn tell<A, M>(to: &Addr<A>, message: M)
where
    A: Supervised + Handler<M>,
    M: Message<Result = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that checks before it drops")]
    if to.connected() {
        to.do_send(message);
    } else {
        metrics::of_actor(A::KIND).undelivered.inc();
    }
}

/// The right to answer one ask, once, from any later event. Dropping it answers with
/// [`ActorGone`].
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// Answers; an asker that no longer listens is fine.
    pub fn send(self, value: T) {
        drop(self.0.send(value));
    }
}

/// Gives every waiter the same answer.
pub fn answer_all<T: Clone>(waiters: impl IntoIterator<Item = Reply<T>>, answer: &T) {
    for waiter in waiters {
        waiter.send(answer.clone());
    }
}

/// A promise of a later answer, and the future that a handler returns for it.
type Deferred<T, E> = (Reply<Result<T, E>>, ResponseFuture<Result<T, E>>);

/// Splits an answer into the right to give it and the future that a handler returns.
pub fn deferred<A, T, E>() -> Deferred<T, E>
where
    A: Supervised,
    T: 'static,
    E: From<ActorGone> + 'static,
{
    let (tx, rx) = oneshot::channel();
    let answer =
        async move { rx.await.unwrap_or_else(|_| Err(E::from(ActorGone { actor: A::KIND }))) };
    (Reply(tx), Box::pin(answer))
}
