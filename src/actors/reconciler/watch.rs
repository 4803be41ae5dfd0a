//! Following files that somebody mounts.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::time::Duration;

use actix::{AsyncContext, Handler, Message};
use futures::StreamExt;
use inotify::{Inotify, WatchMask};

use crate::actors::core::{Ctx, Supervised, tell};

/// For directories that appear later, and for file systems that tell nothing.
pub(in crate::actors) const TICK: Duration = Duration::from_secs(10);
/// A swap is several events.
const SETTLE: Duration = Duration::from_millis(100);
/// Bytes; a few dozen events.
const BUFFER: usize = 4096;

/// Something may have changed.
#[derive(Message)]
#[rtype(result = "()")]
pub(in crate::actors) struct Look;

/// Tells the actor to look: now, whenever something happens in one of these directories, and each [`TICK`].
pub(in crate::actors) fn follow<A: Supervised + Handler<Look>>(
    directories: HashSet<PathBuf>,
    ctx: &mut Ctx<A>,
) {
    let address = ctx.address();
    let watched = watch(directories, move || tell(&address, Look));
    ctx.effect(watched, |_, error, _| {
        tracing::warn!(%error, "file events are not heard; a look each {TICK:?} remains");
    });
    tick(ctx);
}

fn tick<A: Supervised + Handler<Look>>(ctx: &mut Ctx<A>) {
    tell(&ctx.address(), Look);
    // Not before somebody polls it: an actor may also begin where its runtime ends.
    ctx.effect(async { tokio::time::sleep(TICK).await }, |_, (), ctx| tick(ctx));
}

/// A look at something, one at a time.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::actors) struct Looking {
    is_under_way: bool,
    /// Something happened since it began.
    again: bool,
}

impl Looking {
    /// Whether to look now.
    pub(in crate::actors) fn begin(&mut self) -> bool {
        if self.is_under_way {
            self.again = true;
            return false;
        }
        self.is_under_way = true;
        true
    }

    /// Whether to look once more.
    pub(in crate::actors) fn end(&mut self) -> bool {
        self.is_under_way = false;
        std::mem::take(&mut self.again)
    }
}

/// Calls `changed` for events in these directories; those that are not there yet are tried again.
async fn watch(mut missing: HashSet<PathBuf>, changed: impl Fn()) -> std::io::Error {
    let events = match Inotify::init() {
        Ok(events) => events,
        Err(error) => return error,
    };
    let mut watches = events.watches();
    let mask = WatchMask::CREATE
        | WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::DELETE
        | WatchMask::ATTRIB
        | WatchMask::DELETE_SELF;
    let mut events = match events.into_event_stream(vec![0; BUFFER]) {
        Ok(events) => events,
        Err(error) => return error,
    };
    let mut gone = HashMap::new();
    loop {
        missing.retain(|dir| match watches.add(dir, mask) {
            Ok(watch) => {
                gone.insert(watch, dir.clone());
                false
            }
            Err(_) => true, // the tick's look says what is wrong with it
        });
        let event = tokio::select! {
            event = events.next() => event,
            () = tokio::time::sleep(TICK), if !missing.is_empty() => continue,
        };
        match event {
            Some(Ok(event)) => {
                if event.mask.contains(inotify::EventMask::IGNORED)
                    && let Some(dir) = gone.remove(&event.wd)
                {
                    missing.insert(dir);
                }
                tokio::time::sleep(SETTLE).await;
                changed();
            }
            Some(Err(error)) => return error,
            None => return std::io::ErrorKind::UnexpectedEof.into(),
        }
    }
}
