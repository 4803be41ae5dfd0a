//! Slots for what the node does only so much of at once, shared fairly between tenants.
//!
//! A slot that becomes free goes to the tenant that holds the fewest; of equals to the one that was
//! served least recently, so that fifty requests of one namespace don't delay another's first. (By
//! arrival alone they would: with one slot nobody holds any when it becomes free.) Within a tenant
//! the order is that of arrival. A tenant may have a limit of its own: at it, it waits, and others
//! pass.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

use crate::lock::lock;
use crate::model::Tenant;

mod line;
#[cfg(test)]
mod tests;

use line::{Line, Most};

/// A number of slots. Clones share them.
#[derive(Clone)]
pub struct Slots(Arc<Shared>);

/// A request's place among those that wait; ready with its [`Permit`]. Dropping it leaves, and
/// passes on a permit that it was given and never took.
#[must_use = "dropping it gives the place away"]
pub struct Waiting {
    shared: Arc<Shared>,
    ticket: u64,
    tenant: Tenant,
    taken: bool,
}

/// A slot that is held until this is dropped.
#[must_use = "dropping it frees the slot"]
pub struct Permit {
    shared: Arc<Shared>,
    ticket: u64,
}

/// Where a request stands: `3rd of 7`. Right if slots become free in the order in which they were
/// taken and nobody comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// From 1, which is the next.
    pub position: usize,
    pub of: usize,
    /// Its tenant holds as many as it may.
    pub at_limit: bool,
}

impl Slots {
    /// At least one, or nothing would ever be done.
    /// `most` is asked when a tenant comes, and by [`Self::limits_changed`].
    pub fn new(
        count: usize,
        most: impl Fn(&Tenant) -> Option<u32> + Send + Sync + 'static,
    ) -> Self {
        let room = Mutex::new(Room { line: Line::new(count.max(1)), ..Room::default() });
        Self(Arc::new(Shared { room, changed: watch::Sender::new(()), most: Box::new(most) }))
    }

    /// Whoever may hold more from now on is admitted at once; nobody who holds loses it.
    pub fn limits_changed(&self) {
        self.0.change(|room| ((), room.limit(&*self.0.most)));
    }

    pub fn enter(&self, tenant: Tenant) -> Waiting {
        let shared = self.0.clone();
        let ticket = shared.change(|room| {
            // With the lock held: a change after this comes to `limits_changed`.
            let (ticket, admitted) = room.line.enter(&tenant, &*shared.most);
            if !admitted {
                room.wakers.insert(ticket, None);
            }
            (ticket, None::<Waker>)
        });
        Waiting { shared, ticket, tenant, taken: false }
    }
}

impl Waiting {
    /// 1 is the next; `None` once it is admitted.
    #[cfg(test)]
    fn position(&self) -> Option<usize> {
        self.place().map(|place| place.position)
    }

    /// `None` once it is admitted.
    pub fn place(&self) -> Option<Place> {
        let mut room = self.shared.room();
        let room = &mut *room;
        let places = room.places.get_or_insert_with(|| room.line.order());
        let of = places.len();
        let at_limit = room.line.is_at_limit(&self.tenant);
        places.get(&self.ticket).map(|position| Place { position: *position, of, at_limit })
    }

    /// Hears of each change after this call that may have moved somebody's place. Independent of
    /// `self`, so that both can be awaited at once.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// Waits, and tells each place on the way, the first at once.
    pub async fn admitted(mut self, mut tell: impl FnMut(Place)) -> Permit {
        let mut changes = self.changes();
        let mut told = None;
        loop {
            let place = self.place();
            if let Some(place) = place.filter(|place| told != Some(*place)) {
                tell(place);
                told = Some(place);
            }
            tokio::select! {
                biased;
                permit = &mut self => return permit,
                // Its sender lives as long as `self`.
                _ = changes.changed() => {}
            }
        }
    }
}

impl Future for Waiting {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let ticket = self.ticket;
        assert!(!self.taken, "polled after it was ready");
        if let Some(waker) = self.shared.room().wakers.get_mut(&ticket) {
            *waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        self.taken = true;
        Poll::Ready(Permit { shared: self.shared.clone(), ticket })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        self.shared.change(|room| {
            if room.wakers.remove(&self.ticket).is_none() {
                return ((), room.release(self.ticket)); // admitted and not told yet
            }
            room.line.leave(self.ticket, &self.tenant);
            ((), None)
        });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.change(|room| ((), room.release(self.ticket)));
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match (self.position % 10, self.position % 100) {
            (_, 11..=13) => "th",
            (1, _) => "st",
            (2, _) => "nd",
            (3, _) => "rd",
            _ => "th",
        };
        write!(f, "{}{suffix} of {}", self.position, self.of)
    }
}

struct Shared {
    room: Mutex<Room>,
    changed: watch::Sender<()>,
    most: Box<Most>,
}

impl Shared {
    fn room(&self) -> MutexGuard<'_, Room> {
        lock(&self.room)
    }

    /// Wakes who was admitted, and tells the others, without the lock.
    fn change<T, W: IntoIterator<Item = Waker>>(
        &self,
        change: impl FnOnce(&mut Room) -> (T, W),
    ) -> T {
        let (result, admitted) = {
            let mut room = self.room();
            room.places = None;
            change(&mut room)
        };
        admitted.into_iter().for_each(Waker::wake);
        self.changed.send_replace(());
        result
    }
}

#[derive(Default)]
struct Room {
    line: Line,
    /// Of everybody who waits, by ticket, and of nobody else. `None` until the first poll.
    wakers: HashMap<u64, Option<Waker>>,
    /// Worked out when somebody looks after a change.
    places: Option<HashMap<u64, usize>>,
}

impl Room {
    fn release(&mut self, ticket: u64) -> Option<Waker> {
        let next = self.line.release(ticket)?;
        self.wakers.remove(&next).flatten()
    }

    fn limit(&mut self, most: &Most) -> Vec<Waker> {
        let admitted = self.line.limit(most);
        admitted.iter().filter_map(|ticket| self.wakers.remove(ticket).flatten()).collect()
    }
}
