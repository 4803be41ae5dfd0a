use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

/// Without limits.
fn slots(count: usize) -> Slots {
    Slots::new(count, |_| None)
}

/// How many each tenant may hold, to be changed.
#[derive(Clone, Default)]
struct Limits(Arc<Mutex<HashMap<Tenant, u32>>>);

impl Limits {
    fn slots(&self, count: usize) -> Slots {
        let limits = self.clone();
        Slots::new(count, move |tenant| limits.of(tenant))
    }

    fn of(&self, tenant: &Tenant) -> Option<u32> {
        self.0.lock().unwrap().get(tenant).copied()
    }

    fn set(&self, tenant: &Tenant, most: u32) {
        self.0.lock().unwrap().insert(tenant.clone(), most);
    }
}

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
        let slots = slots(count);
        let mut held: Vec<_> = (0..count).map(|_| taken(enter(&slots, "a"))).collect();
        let many: Vec<_> = (0..50).map(|_| enter(&slots, "a")).collect();
        let one = enter(&slots, "b");
        assert_eq!(one.place(), Some(Place { position: 1, of: 51, at_limit: false }));
        drop(held.remove(0));
        assert_eq!(one.position(), None);
        assert!(many.iter().all(|waiting| waiting.position().is_some()));
    }
}

#[test]
fn one_slot_goes_round_and_a_tenant_that_comes_again_and_again_is_not_first() {
    let slots = slots(1);
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
    let slots = slots(1);
    let holder = taken(enter(&slots, "a"));
    let [first, second] = ["a", "b"].map(|tenant| enter(&slots, tenant));
    drop(holder);
    assert_eq!((first.position(), second.position()), (Some(1), None));
    drop(second);
    drop(taken(first));
    assert!(slots.0.room().line.shares.is_empty());
}

#[test]
fn who_is_at_its_limit_waits_and_others_pass() {
    let limits = Limits::default();
    let (a, b) = (Tenant::namespace("a"), Tenant::namespace("b"));
    limits.set(&a, 2);
    let slots = limits.slots(4);
    let mut held = vec![taken(enter(&slots, "a")), taken(enter(&slots, "a"))];
    let waiting = ["a", "a", "a"].map(|tenant| enter(&slots, tenant));
    let first = Place { position: 1, of: 3, at_limit: true };
    assert_eq!(waiting[0].place(), Some(first));
    // Two slots are free, for others.
    let other = taken(enter(&slots, "b"));
    drop(held.pop());
    assert_eq!(positions(&waiting), [None, Some(1), Some(2)]);
    limits.set(&a, 3);
    slots.limits_changed();
    assert_eq!(positions(&waiting), [None, None, Some(1)]);
    // Nobody loses what he has, and nobody gets more before he has less.
    limits.set(&a, 1);
    limits.set(&b, 1);
    slots.limits_changed();
    let [first, second, third] = waiting;
    drop((held, taken(first)));
    assert_eq!(third.place().unwrap().position, 1);
    let b2 = enter(&slots, "b");
    assert!(b2.place().unwrap().at_limit);
    drop(other);
    drop((taken(b2), taken(second)));
    drop(taken(third));
    assert!(slots.0.room().line.shares.is_empty());
}

#[tokio::test]
async fn places_are_told_as_they_change() {
    let slots = slots(1);
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
    let slots = slots(2);
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
        .map(|position| Place { position, of: 200, at_limit: false }.to_string());
    let expected = ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th"];
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
    limits: Limits,
    count: usize,
    requests: Vec<(usize, Tenant, State)>,
    admitted: Vec<usize>,
    next: usize,
}

impl World {
    fn waits(&self, id: usize) -> Option<Place> {
        self.requests.iter().find(|(other, ..)| *other == id).and_then(|(.., state)| match state {
            State::Waits(waiting, _) => waiting.place(),
            State::Holds { .. } => None,
        })
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

    fn limit(&mut self, tenant: &Tenant, most: u32) {
        self.limits.set(tenant, most);
        self.slots.limits_changed();
        self.look();
    }

    fn is_at_limit(&self, tenant: &Tenant) -> bool {
        self.limits.of(tenant).is_some_and(|most| self.holds(tenant) >= most as usize)
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
        let alone = new.len() == 1;
        for (id, tenant) in new {
            // The choice was fair, and its tenant's to have.
            let held = self.holds(&tenant);
            let passed = |other: &Tenant| self.holds(other) >= held || self.is_at_limit(other);
            assert!(!alone || waiting.iter().all(|(_, _, other, _)| passed(other)));
            assert!(!self.is_at_limit(&tenant), "more than its limit");
            self.admitted.push(id);
        }
        assert!(self.admitted.len() <= self.count);
        let is_full = self.admitted.len() == self.count;
        let rightly = waiting.iter().all(|(_, _, tenant, _)| self.is_at_limit(tenant));
        assert!(is_full || rightly, "a slot is free");
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
        steps in prop::collection::vec((0..7usize, any::<prop::sample::Index>()), 0..60),
    ) {
        let tenants = ["a", "b", "c"].map(Tenant::namespace);
        let limits = Limits::default();
        let slots = limits.slots(count);
        let mut world =
            World { slots: slots.clone(), limits, count, requests: vec![], admitted: vec![], next: 0 };
        for (step, index) in steps {
            match step {
                0..=2 => world.enter(tenants[step].clone()),
                6 => world.limit(&tenants[index.index(3)], u32::try_from(index.index(4)).unwrap() + 1),
                _ if world.requests.is_empty() => {}
                3 => world.end(index.index(world.requests.len())),
                _ => world.poll(index.index(world.requests.len())),
            }
        }
        let waiting = world.requests.iter().filter_map(|(id, ..)| Some((world.waits(*id)?.position, *id)));
        let mut expected: Vec<_> = waiting.collect();
        expected.sort_unstable();
        let mut came = Vec::new();
        while let Some(oldest) = world.admitted.first().copied() {
            let at = world.requests.iter().position(|(other, ..)| *other == oldest).unwrap();
            let others = world.admitted.len() - 1;
            world.end(at);
            came.extend_from_slice(&world.admitted[others..]);
        }
        prop_assert_eq!(came, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
        drop(world);
        prop_assert!(slots.0.room().line.shares.is_empty());
        let all: Vec<_> = (0..count).map(|_| taken(enter(&slots, "d"))).collect();
        prop_assert!(enter(&slots, "d").now_or_never().is_none());
        drop(all);
    }
}
