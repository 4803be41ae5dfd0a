//! Slots for what the node does only so much of at once, shared fairly between tenants.
//!
//! A slot that becomes free goes to the tenant that holds the fewest; of equals to the one that was
//! served least recently, so that fifty requests of one namespace don't delay another's first. (By
//! arrival alone they would: with one slot nobody holds any when it becomes free.) Within a tenant
//! the order is that of arrival.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::watch;

use crate::model::Tenant;

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
}

impl Slots {
    /// At least one, or nothing would ever be done.
    pub fn new(count: usize) -> Self {
        let room = Mutex::new(Room { line: Line::new(count.max(1)), ..Room::default() });
        Self(Arc::new(Shared { room, changed: watch::Sender::new(()) }))
    }

    pub fn enter(&self, tenant: Tenant) -> Waiting {
        let shared = self.0.clone();
        let ticket = shared.change(|room| {
            let (ticket, admitted) = room.line.enter(tenant.clone());
            if !admitted {
                room.wakers.insert(ticket, None);
            }
            (ticket, None)
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
        places.get(&self.ticket).map(|position| Place { position: *position, of })
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
}

impl Shared {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who was admitted, and tells the others, without the lock.
    fn change<T>(&self, change: impl FnOnce(&mut Room) -> (T, Option<Waker>)) -> T {
        let (result, admitted) = {
            let mut room = self.room();
            room.places = None;
            change(&mut room)
        };
        if let Some(waker) = admitted {
            waker.wake();
        }
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
}

/// Who holds slots and who waits. Pure. Nobody waits while a slot is free.
#[derive(Clone, Default)]
struct Line {
    count: usize,
    /// Since the oldest was admitted.
    held: VecDeque<(u64, Tenant)>,
    /// Of those who hold or wait.
    shares: HashMap<Tenant, Share>,
    tickets: u64,
    admissions: u64,
}

#[derive(Clone)]
struct Share {
    held: usize,
    waiting: VecDeque<u64>,
    /// The number of the last admission. A tenant that comes, again or for the first time, counts
    /// as served just before the last one was: forgetting it gives it no advantage over those who
    /// wait longer, and it is before whoever was served last.
    served: u64,
}

impl Line {
    fn new(count: usize) -> Self {
        Self { count, ..Self::default() }
    }

    /// A ticket, and whether a slot was free.
    fn enter(&mut self, tenant: Tenant) -> (u64, bool) {
        self.tickets += 1;
        let served = self.admissions.saturating_sub(1);
        let newcomer = Share { held: 0, waiting: VecDeque::new(), served };
        let share = self.shares.entry(tenant).or_insert(newcomer);
        share.waiting.push_back(self.tickets);
        (self.tickets, self.admit() == Some(self.tickets))
    }

    fn leave(&mut self, ticket: u64, tenant: &Tenant) {
        if let Some(share) = self.shares.get_mut(tenant) {
            share.waiting.retain(|other| *other != ticket);
        }
        self.forget_idle(tenant);
    }

    /// The ticket that is admitted instead.
    fn release(&mut self, ticket: u64) -> Option<u64> {
        let at = self.held.iter().position(|(other, _)| *other == ticket)?;
        let (_, tenant) = self.held.remove(at)?;
        if let Some(share) = self.shares.get_mut(&tenant) {
            share.held -= 1;
        }
        let admitted = self.admit();
        self.forget_idle(&tenant);
        admitted
    }

    fn admit(&mut self) -> Option<u64> {
        if self.held.len() == self.count {
            return None;
        }
        let waiting = self.shares.iter_mut().filter(|(_, share)| !share.waiting.is_empty());
        let (tenant, share) = waiting
            .min_by_key(|(_, share)| (share.held, share.served, share.waiting.front().copied()))?;
        let ticket = share.waiting.pop_front()?;
        self.admissions += 1;
        share.held += 1;
        share.served = self.admissions;
        self.held.push_back((ticket, tenant.clone()));
        Some(ticket)
    }

    fn forget_idle(&mut self, tenant: &Tenant) {
        if self.shares.get(tenant).is_some_and(|s| s.held == 0 && s.waiting.is_empty()) {
            self.shares.remove(tenant);
        }
    }

    /// Positions by ticket, from 1: what happens if the oldest slot is always the next to be free.
    fn order(&self) -> HashMap<u64, usize> {
        let mut then = self.clone();
        let oldest_ends = || {
            let oldest = then.held.front()?.0;
            then.release(oldest)
        };
        std::iter::from_fn(oldest_ends).zip(1..).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn enter(slots: &Slots, tenant: &str) -> Waiting {
        slots.enter(Tenant::namespace(tenant))
    }

    fn taken(waiting: Waiting) -> Permit {
        waiting.now_or_never().expect("admitted")
    }

    fn positions(waiting: &[Waiting]) -> Vec<Option<usize>> {
        waiting.iter().map(Waiting::position).collect()
    }

    #[test]
    fn many_requests_of_one_tenant_delay_no_other() {
        for count in [1, 3] {
            let slots = Slots::new(count);
            let mut held: Vec<_> = (0..count).map(|_| taken(enter(&slots, "a"))).collect();
            let many: Vec<_> = (0..50).map(|_| enter(&slots, "a")).collect();
            let one = enter(&slots, "b");
            assert_eq!(one.place(), Some(Place { position: 1, of: 51 }));
            drop(held.remove(0));
            assert_eq!(one.position(), None);
            assert!(many.iter().all(|waiting| waiting.position().is_some()));
        }
    }

    #[test]
    fn one_slot_goes_round_and_a_tenant_that_comes_again_and_again_is_not_first() {
        let slots = Slots::new(1);
        let first = taken(enter(&slots, "a"));
        let line = ["a", "a", "b", "b", "c"].map(|tenant| enter(&slots, tenant));
        assert_eq!(positions(&line), [3, 5, 1, 4, 2].map(Some));
        drop(first);
        let [a1, a2, b1, b2, c1] = line;
        let b1 = taken(b1);
        let again = enter(&slots, "d");
        assert_eq!(positions(&[c1, a1, again, b2, a2]), [1, 2, 3, 4, 5].map(Some));
        drop(b1);

        // Everybody has left. A tenant whose share is forgotten each time does not overtake.
        let mut holder = taken(enter(&slots, "x"));
        let waits = ["y", "y", "y"].map(|tenant| enter(&slots, tenant));
        for waiting in waits {
            let newcomer = enter(&slots, "x");
            assert_eq!(waiting.position(), Some(1));
            drop(holder);
            drop(taken(waiting));
            holder = taken(newcomer);
        }
    }

    #[test]
    fn a_permit_that_was_never_taken_is_passed_on() {
        let slots = Slots::new(1);
        let holder = taken(enter(&slots, "a"));
        let [first, second] = ["a", "b"].map(|tenant| enter(&slots, tenant));
        drop(holder);
        assert_eq!((first.position(), second.position()), (Some(1), None));
        drop(second);
        drop(taken(first));
        assert!(slots.0.room().line.shares.is_empty());
    }

    #[tokio::test]
    async fn places_are_told_as_they_change() {
        let slots = Slots::new(1);
        let mut held = VecDeque::from([taken(enter(&slots, "a"))]);
        let others = [enter(&slots, "b"), enter(&slots, "c")];
        let told = Mutex::new(Vec::new());
        let tell = |place: Place| told.lock().unwrap().push(place.to_string());
        let mut waits = std::pin::pin!(enter(&slots, "d").admitted(tell));
        assert!((&mut waits).now_or_never().is_none());
        for other in others {
            held.pop_front();
            held.push_back(other.await);
            assert!((&mut waits).now_or_never().is_none());
        }
        let last = enter(&slots, "e");
        assert!((&mut waits).now_or_never().is_none());
        held.clear();
        let _permit = waits.await;
        assert_eq!(*told.lock().unwrap(), ["3rd of 3", "2nd of 2", "1st of 1", "1st of 2"]);
        assert_eq!(last.position(), Some(1));
    }

    #[test]
    fn slots_work_from_threads() {
        let slots = Slots::new(2);
        let inside = Mutex::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (slots, inside) = (&slots, &inside);
                scope.spawn(move || {
                    for n in 0..500 {
                        let waiting = enter(slots, ["a", "b", "c"][(n + thread) % 3]);
                        if n % 7 == 0 {
                            continue; // dropped, admitted or not
                        }
                        let permit = futures::executor::block_on(waiting);
                        *inside.lock().unwrap() += 1;
                        std::thread::yield_now();
                        assert!(*inside.lock().unwrap() <= 2);
                        *inside.lock().unwrap() -= 1;
                        drop(permit);
                    }
                });
            }
        });
        assert!(slots.0.room().line.shares.is_empty());
    }

    #[test]
    fn places_read_well() {
        let shown = [1, 2, 3, 4, 11, 12, 13, 21, 102, 111]
            .map(|position| Place { position, of: 200 }.to_string());
        let expected =
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"];
        assert_eq!(shown, expected.map(|position| format!("{position} of 200")));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    enum State {
        Waits(Waiting, Option<Arc<Woken>>),
        Holds { _permit: Permit },
    }

    /// The outside's view: requests in order of arrival, and admissions in theirs.
    struct World {
        slots: Slots,
        count: usize,
        requests: Vec<(usize, Tenant, State)>,
        admitted: Vec<usize>,
        next: usize,
    }

    impl World {
        fn waits(&self, id: usize) -> Option<Place> {
            self.requests.iter().find(|(other, ..)| *other == id).and_then(
                |(.., state)| match state {
                    State::Waits(waiting, _) => waiting.place(),
                    State::Holds { .. } => None,
                },
            )
        }

        fn holds(&self, tenant: &Tenant) -> usize {
            let of = |id: &&usize| self.requests.iter().any(|(r, t, _)| r == *id && t == tenant);
            self.admitted.iter().filter(of).count()
        }

        fn enter(&mut self, tenant: Tenant) {
            let waiting = self.slots.enter(tenant.clone());
            self.requests.push((self.next, tenant, State::Waits(waiting, None)));
            self.next += 1;
            self.look();
        }

        fn end(&mut self, at: usize) {
            let (id, ..) = self.requests.remove(at);
            self.admitted.retain(|other| *other != id);
            self.look();
        }

        fn poll(&mut self, at: usize) {
            let (id, _, state) = &mut self.requests[at];
            let State::Waits(waiting, woken) = state else { return };
            let flag = Arc::new(Woken::default());
            let waker = Waker::from(flag.clone());
            match waiting.poll_unpin(&mut Context::from_waker(&waker)) {
                Poll::Pending => *woken = Some(flag),
                Poll::Ready(permit) => {
                    assert!(self.admitted.contains(id));
                    *state = State::Holds { _permit: permit };
                }
            }
        }

        /// Who was admitted by the last step, and every invariant.
        fn look(&mut self) {
            let mut waiting = Vec::new();
            let mut new = Vec::new();
            for (id, tenant, state) in &self.requests {
                let State::Waits(place, woken) = state else { continue };
                match place.place() {
                    Some(place) => waiting.push((place.position, *id, tenant.clone(), place.of)),
                    None if self.admitted.contains(id) => {}
                    None => {
                        let told = woken.as_ref().is_none_or(|w| w.0.load(Ordering::Relaxed));
                        assert!(told, "admitted and not woken");
                        new.push((*id, tenant.clone()));
                    }
                }
            }
            assert!(new.len() <= 1);
            for (id, tenant) in new {
                // The choice was fair.
                let held = self.holds(&tenant);
                assert!(waiting.iter().all(|(_, _, other, _)| self.holds(other) >= held));
                self.admitted.push(id);
            }
            assert!(self.admitted.len() <= self.count);
            assert!(waiting.is_empty() || self.admitted.len() == self.count, "a slot is free");
            waiting.sort_unstable();
            for (n, (position, id, tenant, of)) in waiting.iter().enumerate() {
                assert_eq!((*position, *of), (n + 1, waiting.len()));
                let earlier = waiting[..n].iter().all(|(_, other, t, _)| t != tenant || other < id);
                assert!(earlier, "a tenant's requests are in order");
            }
        }
    }

    proptest! {
        #[test]
        fn in_any_order_of_events_no_slot_is_lost_and_places_come_true(
            count in 1..4usize,
            steps in prop::collection::vec((0..6usize, any::<prop::sample::Index>()), 0..60),
        ) {
            let tenants = ["a", "b", "c"].map(Tenant::namespace);
            let slots = Slots::new(count);
            let mut world = World { slots: slots.clone(), count, requests: vec![], admitted: vec![], next: 0 };
            for (step, index) in steps {
                match step {
                    0..=2 => world.enter(tenants[step].clone()),
                    _ if world.requests.is_empty() => {}
                    3 => world.end(index.index(world.requests.len())),
                    _ => world.poll(index.index(world.requests.len())),
                }
            }
            let waiting = world.requests.iter().filter_map(|(id, ..)| Some((world.waits(*id)?.position, *id)));
            let mut expected: Vec<_> = waiting.collect();
            expected.sort_unstable();
            for (_, id) in expected {
                let oldest = world.admitted[0];
                let at = world.requests.iter().position(|(other, ..)| *other == oldest).unwrap();
                world.end(at);
                prop_assert_eq!(world.admitted.last(), Some(&id));
            }
            drop(world);
            prop_assert!(slots.0.room().line.shares.is_empty());
            let all: Vec<_> = (0..count).map(|_| taken(enter(&slots, "a"))).collect();
            prop_assert!(enter(&slots, "a").now_or_never().is_none());
            drop(all);
        }
    }
}
