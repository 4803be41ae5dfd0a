//! Table tests of the transitions that contract.md demands, and a property: in any order of
//! events at most one effect on the world is under way, nothing abandoned comes back, and no waiter
//! is lost.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{Access, Layout, Source, VolumeSpec};

type M = Machine<u32, u32, u32>;

fn target(name: &str) -> TargetPath {
    TargetPath::parse("target_path", &format!("/t/{name}")).unwrap()
}

fn request(expression: &str, at: &str) -> Arc<Request> {
    let spec = VolumeSpec {
        access: Access::ReadOnly,
        access_mode: 1,
        attributes: BTreeMap::from([("nixExpr".to_owned(), expression.to_owned())]).into(),
        source: Source::NixExpr(expression.to_owned()),
        pod: None,
        layout: Layout::Plain,
        size: None,
        secret: None,
        tokens: None,
    };
    Arc::new(Request { spec, target: target(at) })
}

fn publish(machine: &mut M, expression: &str, waiter: u32) -> Effects<u32, u32, u32> {
    machine.step(Event::Publish { request: request(expression, "a"), waiter })
}

fn mounted() -> M {
    let mut machine = M::recovered(request("x", "a"), 9, true);
    assert!(publish(&mut machine, "y", 1).len() == 1);
    machine
}

fn refusal(effects: &[Effect<u32, u32, u32>]) -> String {
    match effects {
        [
            Effect::AnswerPublish { result: Err(e), .. }
            | Effect::AnswerUnpublish { result: Err(e), .. },
        ] => e.to_string(),
        other => panic!("not a refusal: {other:?}"),
    }
}

#[test]
fn a_second_publish_joins_the_first() {
    let mut machine = M::new();
    assert!(matches!(publish(&mut machine, "x", 1)[..], [Effect::Resolve { op: 1, .. }]));
    assert!(publish(&mut machine, "x", 2).is_empty());
    let effects = machine.step(Event::Resolved { op: 1, result: Ok(7) });
    assert!(matches!(effects[..], [Effect::Present { op: 2, view: 7, .. }]));
    assert!(publish(&mut machine, "x", 3).is_empty());
    let effects = machine.step(Event::Presented { op: 2, result: Ok(()) });
    let [Effect::AnswerPublish { waiters, result: Ok(()) }] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(*waiters, [1, 2, 3]);
}

#[test]
fn a_publish_of_a_live_volume_only_looks() {
    let mut machine = mounted();
    assert!(matches!(publish(&mut machine, "x", 1)[..], [Effect::Check { .. }]));
    let effects = machine.step(Event::Checked { op: 1, result: Ok(Seen::Whole) });
    assert!(matches!(effects[..], [Effect::AnswerPublish { result: Ok(()), .. }]));
}

#[test]
fn a_vanished_mount_is_presented_again_with_its_first_resolution() {
    let mut machine = mounted();
    publish(&mut machine, "x", 1);
    let effects = machine.step(Event::Checked { op: 1, result: Ok(Seen::Nothing) });
    assert!(matches!(effects[..], [Effect::Present { view: 9, .. }]));
}

/// A look that fails says nothing of what is there.
#[test]
fn what_was_whole_stays_so_while_nobody_can_look() {
    let mut machine = mounted();
    for op in [1, 2] {
        let effects = publish(&mut machine, "x", 1);
        assert!(matches!(effects[..], [Effect::Check { verified: true, .. }]), "{effects:?}");
        let failed = Err(Arc::new(VolumeError::Overtaken));
        machine.step(Event::Checked { op, result: failed });
        assert!(matches!(machine.state(), State::Mounted { view: 9, verified: true, .. }));
    }
}

/// What was never whole is looked at so until it is.
#[test]
fn what_is_half_mounted_and_refused_is_taken_away() {
    let mut machine = M::new();
    publish(&mut machine, "x", 1);
    machine.step(Event::Resolved { op: 1, result: Ok(7) });
    let error = || Arc::new(VolumeError::Overtaken);
    let failed = PresentFailed { error: error(), clean: false };
    machine.step(Event::Presented { op: 2, result: Err(failed) });
    for op in [3, 4] {
        let effects = publish(&mut machine, "x", 2);
        assert!(matches!(effects[..], [Effect::Check { verified: false, .. }]), "{effects:?}");
        machine.step(Event::Checked { op, result: Err(error()) });
    }
    publish(&mut machine, "x", 3);
    let effects = machine.step(Event::Checked { op: 5, result: Ok(Seen::Refused(error())) });
    let [
        Effect::AnswerPublish { waiters, result: Err(_) },
        Effect::Remove { op: 6, view: Some(7), .. },
    ] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(*waiters, [3]);
    assert!(refusal(&publish(&mut machine, "x", 4)).contains("being unpublished"));
    let effects = machine.step(Event::Removed { op: 6, result: Ok(()) });
    assert!(matches!(effects[..], [Effect::AnswerUnpublish { .. }, Effect::End]));
}

#[test]
fn another_request_for_a_live_volume_is_refused() {
    let mut machine = mounted();
    assert!(refusal(&publish(&mut machine, "y", 1)).contains("already published with other"));
    let elsewhere = Event::Publish { request: request("x", "b"), waiter: 1 };
    assert!(refusal(&machine.step(elsewhere)).contains("published at /t/a, not at /t/b"));
    let elsewhere = Event::Unpublish { target: target("b"), waiter: 1 };
    assert!(refusal(&machine.step(elsewhere)).contains("published at /t/a, not at /t/b"));
}

#[test]
fn unpublish_overtakes_a_resolution() {
    let mut machine = M::new();
    publish(&mut machine, "x", 1);
    let effects = machine.step(Event::Unpublish { target: target("a"), waiter: 2 });
    assert!(matches!(
        effects[..],
        [
            Effect::AnswerPublish { result: Err(_), .. },
            Effect::Abandon,
            Effect::Remove { op: 2, view: None, .. }
        ]
    ));
    assert!(refusal(&publish(&mut machine, "x", 3)).contains("being unpublished"));
    // The late result of the overtaken resolution changes nothing.
    assert!(machine.step(Event::Resolved { op: 1, result: Ok(7) }).is_empty());
    let effects = machine.step(Event::Removed { op: 2, result: Ok(()) });
    assert!(matches!(effects[..], [Effect::AnswerUnpublish { result: Ok(()), .. }, Effect::End]));
}

#[test]
fn a_failed_removal_loses_nothing() {
    let mut machine = M::recovered(request("x", "a"), 9, true);
    machine.step(Event::Unpublish { target: target("a"), waiter: 1 });
    let busy = Err(Arc::new(VolumeError::Overtaken));
    let effects = machine.step(Event::Removed { op: 1, result: busy });
    assert!(matches!(effects[..], [Effect::AnswerUnpublish { result: Err(_), .. }]));
    assert!(matches!(machine.state(), State::Mounted { view: 9, verified: false, .. }));
}

/// What the test does next: a caller's message, or the end of the effect under way.
#[derive(Debug, Clone)]
enum Action {
    Publish {
        other_spec: bool,
    },
    Unpublish,
    Finish {
        well: bool,
        clean: bool,
    },
    /// The kernel's mount goes away by somebody else's hand.
    Vanish,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => any::<bool>().prop_map(|o| Action::Publish { other_spec: o }),
        3 => Just(Action::Unpublish),
        6 => (prop::bool::weighted(0.8), any::<bool>())
            .prop_map(|(well, clean)| Action::Finish { well, clean }),
        1 => Just(Action::Vanish),
    ]
}

/// A world with one mount point.
#[derive(Default)]
struct World {
    mounts: u32,
    /// Effects under way; a stale resolution may be among them.
    running: Vec<Effect<u32, u32, u32>>,
    waiting: HashSet<u32>,
    next_waiter: u32,
    /// Resolutions that nobody waits for; what they bring must change nothing.
    abandoned: HashSet<Op>,
    ended: bool,
}

impl World {
    fn waiter(&mut self) -> u32 {
        self.next_waiter += 1;
        self.waiting.insert(self.next_waiter);
        self.next_waiter
    }

    fn take(&mut self, effects: Vec<Effect<u32, u32, u32>>) {
        self.ended = false;
        for effect in effects {
            match effect {
                Effect::AnswerPublish { waiters, .. } | Effect::AnswerUnpublish { waiters, .. } => {
                    for waiter in waiters {
                        assert!(self.waiting.remove(&waiter), "{waiter} answered twice");
                    }
                }
                Effect::End => {
                    assert_eq!(self.mounts, 0, "ended while mounted");
                    self.ended = true;
                }
                Effect::Abandon => {
                    let resolving = |e: &Effect<_, _, _>| match e {
                        Effect::Resolve { op, .. } => Some(*op),
                        _ => None,
                    };
                    self.abandoned.extend(self.running.iter().filter_map(resolving));
                }
                running => {
                    let touches = |e: &Effect<_, _, _>| !matches!(e, Effect::Resolve { .. });
                    assert!(
                        !(touches(&running) && self.running.iter().any(touches)),
                        "two effects on the world at once"
                    );
                    self.running.push(running);
                }
            }
        }
    }

    fn finish(&mut self, well: bool, clean: bool) -> Option<Event<u32, u32, u32>> {
        let error = || Arc::new(VolumeError::Overtaken);
        Some(match self.running.pop()? {
            Effect::Resolve { op, .. } => {
                Event::Resolved { op, result: if well { Ok(1) } else { Err(error()) } }
            }
            Effect::Present { op, .. } => {
                // The mount room never stacks: a mount that is there is success.
                let result = if well {
                    self.mounts = 1;
                    Ok(())
                } else {
                    self.mounts = u32::from(!clean);
                    Err(PresentFailed { error: error(), clean })
                };
                Event::Presented { op, result }
            }
            Effect::Check { op, verified, .. } => {
                let seen = match (self.mounts, verified || clean) {
                    (1, _) => Seen::Whole,
                    (_, true) => Seen::Nothing,
                    (_, false) => Seen::Refused(error()),
                };
                Event::Checked { op, result: if well { Ok(seen) } else { Err(error()) } }
            }
            Effect::Remove { op, .. } => {
                let result = if well { Ok(()) } else { Err(error()) };
                if well {
                    self.mounts = 0;
                }
                Event::Removed { op, result }
            }
            other => unreachable!("{other:?}"),
        })
    }
}

proptest! {
    #[test]
    fn one_effect_at_a_time_and_no_waiter_lost(actions in prop::collection::vec(action(), 0..60)) {
        let mut machine = M::new();
        let mut world = World::default();
        for action in actions {
            let event = match action {
                Action::Publish { other_spec } => {
                    let request = request(if other_spec { "y" } else { "x" }, "a");
                    Some(Event::Publish { request, waiter: world.waiter() })
                }
                Action::Unpublish => {
                    Some(Event::Unpublish { target: target("a"), waiter: world.waiter() })
                }
                Action::Finish { well, clean } => world.finish(well, clean),
                Action::Vanish => { world.mounts = 0; None }
            };
            if let Some(event) = event {
                let stale = matches!(&event, Event::Resolved { op, .. } if world.abandoned.contains(op));
                let effects = machine.step(event);
                prop_assert!(!stale || effects.is_empty(), "abandoned, and yet: {:?}", effects);
                world.take(effects);
            }
            if let State::Mounted { .. } = machine.state() {
                let settled = world.running.iter().all(|e| matches!(e, Effect::Resolve { .. }));
                prop_assert!(settled, "mounted with an effect on the world under way");
            }
        }
        // Let everything under way end well, then unpublish: nothing may be left.
        for round in 0..2 {
            while let Some(event) = world.finish(true, true) {
                let effects = machine.step(event);
                world.take(effects);
            }
            if round == 0 {
                let waiter = world.waiter();
                let effects = machine.step(Event::Unpublish { target: target("a"), waiter });
                world.take(effects);
            }
        }
        prop_assert!(world.waiting.is_empty(), "lost waiters: {:?}", world.waiting);
        prop_assert!(matches!(machine.state(), State::Absent));
        prop_assert_eq!(world.mounts, 0);
        prop_assert!(world.ended);
    }
}
