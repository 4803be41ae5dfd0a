//! The context of every actor here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use actix::dev::{AsyncContextParts, ContextFut, ContextParts, Mailbox};
use actix::fut::wrap_future;
use actix::{
    ActorContext, ActorFuture, ActorFutureExt, ActorState, Addr, AsyncContext, SpawnHandle,
};
use tracing::Span;

use super::Supervised;

/// Like `actix::Context`, with measured messages, spans and failure as a value.
pub struct Ctx<A: Supervised> {
    parts: ContextParts<A>,
    failure: Option<String>,
}

impl<A: Supervised> Ctx<A> {
    pub(super) fn start(actor: A) -> ContextFut<A, Self> {
        let mailbox = Mailbox::default();
        let parts = ContextParts::new(mailbox.sender_producer());
        ContextFut::new(Self { parts, failure: None }, actor, mailbox)
    }

    /// Ends this incarnation as failed; the supervisor restarts the actor after a backoff.
    pub fn fail(&mut self, reason: impl Into<String>) {
        self.failure = Some(reason.into());
        self.parts.stop();
    }

    pub(super) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    /// Runs an effect beside the mailbox; its output comes back as a call of `then`. A restart drops
    /// the effect's output, not work that it has handed to another thread.
    pub fn effect<F, T>(&mut self, effect: F, then: impl FnOnce(&mut A, T, &mut Self) + 'static)
    where
        F: Future<Output = T> + 'static,
        T: 'static,
    {
        let effect = wrap_future::<_, A>(effect);
        self.spawn(effect.map(|output, actor: &mut A, ctx: &mut Self| then(actor, output, ctx)));
    }
}

impl<A: Supervised> ActorContext for Ctx<A> {
    fn stop(&mut self) {
        self.parts.stop();
    }
    fn terminate(&mut self) {
        self.parts.terminate();
    }
    fn state(&self) -> ActorState {
        self.parts.state()
    }
}

impl<A: Supervised> AsyncContext<A> for Ctx<A> {
    fn address(&self) -> Addr<A> {
        self.parts.address()
    }
    fn spawn<F>(&mut self, future: F) -> SpawnHandle
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.spawn(InSpan { future: Box::pin(future), span: Span::current() })
    }
    fn wait<F>(&mut self, future: F)
    where
        F: ActorFuture<A, Output = ()> + 'static,
    {
        self.parts.wait(future);
    }
    fn waiting(&self) -> bool {
        self.parts.waiting()
    }
    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.parts.cancel_future(handle)
    }
}

impl<A: Supervised> AsyncContextParts<A> for Ctx<A> {
    fn parts(&mut self) -> &mut ContextParts<A> {
        &mut self.parts
    }
}

/// Polls an effect in the span of the message that caused it.
struct InSpan<A: Supervised> {
    future: Pin<Box<dyn ActorFuture<A, Output = ()>>>,
    span: Span,
}

impl<A: Supervised> ActorFuture<A> for InSpan<A> {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        actor: &mut A,
        ctx: &mut Ctx<A>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        let this = &mut *self;
        this.span.in_scope(|| this.future.as_mut().poll(actor, ctx, task))
    }
}
