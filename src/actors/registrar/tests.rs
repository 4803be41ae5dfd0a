//! The plan, step by step.

use std::time::Duration;

use tokio::time::Instant;

use super::Notice;
use super::plan::{Plan, Step};

const SECOND: Duration = Duration::from_secs(1);

fn refused() -> Notice {
    Notice::Refused("no".to_owned())
}

fn is_close(step: &Step) -> bool {
    matches!(step, Step::Close { .. })
}

#[test]
fn a_registered_driver_is_left_alone() {
    let now = Instant::now();
    let mut plan = Plan::new(now);
    assert_eq!(plan.tick(now, false, None), Step::Open);
    plan.opened(now);
    assert_eq!(plan.heard(&Notice::Asked, now), Step::Nothing);
    assert!(!plan.is_registered());
    assert_eq!(plan.heard(&Notice::Registered, now), Step::Nothing);
    assert!(plan.is_registered());
    for (after, listed) in [(1, None), (10_000, Some(true)), (20_000, None)] {
        assert_eq!(plan.tick(now + after * SECOND, true, listed), Step::Nothing);
    }
}

#[test]
fn a_refusal_is_repeated_after_a_wait_that_doubles() {
    let mut now = Instant::now();
    let mut plan = Plan::new(now);
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        plan.opened(now);
        assert!(is_close(&plan.heard(&refused(), now)));
        assert_eq!(plan.tick(now + wait * SECOND - SECOND / 2, false, None), Step::Nothing);
        now += wait * SECOND;
        assert_eq!(plan.tick(now, false, None), Step::Open);
    }
    plan.opened(now);
    plan.heard(&Notice::Registered, now);
    assert!(is_close(&plan.heard(&refused(), now)));
    assert_eq!(plan.tick(now + SECOND, false, None), Step::Open, "the wait begins anew");
}

#[test]
fn a_kubelet_that_says_nothing_is_offered_the_socket_again() {
    let mut now = Instant::now();
    let mut plan = Plan::new(now);
    for wait in [30, 60, 120, 240, 300, 300] {
        plan.opened(now);
        assert_eq!(plan.tick(now + (wait - 1) * SECOND, true, None), Step::Nothing);
        now += wait * SECOND;
        assert!(is_close(&plan.tick(now, true, None)));
        assert_eq!(plan.tick(now, false, None), Step::Open);
    }
}

#[test]
fn a_socket_that_somebody_took_away_is_made_again_at_once() {
    let now = Instant::now();
    for registered in [false, true] {
        let mut plan = Plan::new(now);
        plan.opened(now);
        if registered {
            plan.heard(&Notice::Registered, now);
        }
        assert!(is_close(&plan.tick(now, false, None)));
        assert!(!plan.is_registered());
        assert_eq!(plan.tick(now, false, None), Step::Open);
    }
}

#[test]
fn a_driver_that_csinode_misses_thrice_in_a_row_is_registered_anew() {
    let now = Instant::now();
    let mut plan = Plan::new(now);
    plan.opened(now);
    plan.heard(&Notice::Registered, now);
    for listed in [Some(false), Some(false), Some(true), Some(false), None, Some(false), None] {
        assert_eq!(plan.tick(now, true, listed), Step::Nothing);
    }
    assert!(is_close(&plan.tick(now, true, Some(false))));
    assert_eq!(plan.tick(now, false, None), Step::Open);
}

#[test]
fn a_failed_opening_is_tried_again() {
    let now = Instant::now();
    let mut plan = Plan::new(now);
    plan.open_failed(now);
    assert_eq!(plan.tick(now, false, None), Step::Nothing);
    assert_eq!(plan.tick(now + SECOND, false, None), Step::Open);
}
