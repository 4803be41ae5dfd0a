//! The envelope that measures its message and carries the sender's span.

use std::sync::Arc;

use actix::dev::{Envelope, EnvelopeProxy, MessageResponse, OneshotSender, ToEnvelope};
use actix::{Handler, Message};
use tokio::time::Instant;
use tracing::Span;

use super::metrics::{self, OfMessage};
use super::{Ctx, Supervised};

struct Measured<M: Message> {
    message: Option<M>,
    reply: Option<OneshotSender<M::Result>>,
    sent: Instant,
    span: Span,
    metrics: Arc<OfMessage>,
}

impl<A, M> ToEnvelope<A, M> for Ctx<A>
where
    A: Supervised + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(message: M, reply: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        let metrics = metrics::of_message(A::KIND, std::any::type_name::<M>());
        metrics.depth.inc();
        Envelope::with_proxy(Box::new(Measured {
            message: Some(message),
            reply,
            sent: Instant::now(),
            span: Span::current(),
            metrics,
        }))
    }
}

impl<A, M> EnvelopeProxy<A> for Measured<M>
where
    A: Supervised + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(&mut self, actor: &mut A, ctx: &mut Ctx<A>) {
        let Some(message) = self.message.take() else {
            return;
        };
        let reply = self.reply.take();
        self.metrics.queue.observe(self.sent.elapsed().as_secs_f64());
        // The asker went away while its message was queued: the answer is not wanted.
        if reply.as_ref().is_some_and(OneshotSender::is_closed) {
            return;
        }
        let began = Instant::now();
        self.span.in_scope(|| actor.handle(message, ctx).handle(ctx, reply));
        self.metrics.handle.observe(began.elapsed().as_secs_f64());
    }
}

impl<M: Message> Drop for Measured<M> {
    // Handled, or lost with its mailbox: either way no longer waiting.
    fn drop(&mut self) {
        self.metrics.depth.dec();
    }
}
