//! The outbox, call by call.

use super::*;
use crate::k8s::Kind;
use crate::model::PodInfo;

const SECOND: Duration = Duration::from_secs(1);

fn event(pod: &str, note: &str) -> Event {
    let pod = PodInfo { uid: pod.to_owned(), ..PodInfo::default() };
    let (kind, reason, action) = (Kind::Normal, "StoreMounted", "Mount");
    Event { pod, kind, reason, action, note: note.to_owned(), at: jiff::Timestamp::UNIX_EPOCH }
}

fn down() -> ApiError {
    ApiError::Down { what: "post", reason: "test".to_owned() }
}

fn named() -> EventName {
    EventName { namespace: "ns".to_owned(), name: "e".to_owned() }
}

/// The note of the next post, or the count of the next repetition.
fn next(outbox: &mut Outbox, now: Instant) -> Option<String> {
    outbox.next(now).map(|call| match call {
        Call::Post(event) => event.note,
        Call::Repeat(_, count) => format!("x{count}"),
    })
}

/// Makes all calls that may be made now.
fn drain(outbox: &mut Outbox, now: Instant) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(said) = next(outbox, now) {
        outbox.done(Ok(Some(named())), now);
        all.push(said);
    }
    all
}

#[test]
fn events_go_in_their_order_one_at_a_time() {
    let now = Instant::now();
    let mut outbox = Outbox::new(now);
    outbox.happened(event("a", "one"), now);
    outbox.progress(event("a", "two"), now);
    assert_eq!(next(&mut outbox, now).as_deref(), Some("one"));
    assert_eq!(next(&mut outbox, now), None, "one is under way");
    outbox.done(Ok(Some(named())), now);
    assert_eq!(drain(&mut outbox, now), ["two"]);
}

#[test]
fn the_same_failure_is_one_event_with_a_count() {
    let start = Instant::now();
    let mut outbox = Outbox::new(start);
    let mut said = Vec::new();
    // The kubelet's calls: fifty within five minutes, and of another pod a single one.
    outbox.failed(event("b", "other"), "why".to_owned(), start);
    for n in 0..50 {
        let now = start + n * 6 * SECOND;
        outbox.failed(event("a", &format!("after {n} s")), "why".to_owned(), now);
        said.extend(drain(&mut outbox, now));
    }
    assert_eq!(said[..2], ["other", "after 0 s"]);
    assert!(said[2..].iter().all(|said| said.starts_with('x')), "{said:?}");
    assert!(said.len() <= 2 + 300 / 15, "{said:?}");
    let last = drain(&mut outbox, start + 320 * SECOND);
    assert_eq!(last, ["x50"]);
    assert!(drain(&mut outbox, start + 400 * SECOND).is_empty());
}

#[test]
fn a_failure_long_ago_or_an_expired_event_is_news_again() {
    let start = Instant::now();
    let mut outbox = Outbox::new(start);
    outbox.failed(event("a", "first"), "why".to_owned(), start);
    assert_eq!(drain(&mut outbox, start), ["first"]);
    outbox.failed(event("a", "again"), "why".to_owned(), start);
    let now = start + UPDATE;
    assert_eq!(next(&mut outbox, now).as_deref(), Some("x2"));
    let gone = ApiError::Gone { what: "update", reason: "expired".to_owned() };
    outbox.done(Err(gone), now);
    assert_eq!(drain(&mut outbox, now), ["first"]);
    let later = now + SAME;
    assert!(drain(&mut outbox, later).is_empty());
    outbox.failed(event("a", "later"), "why".to_owned(), later);
    assert_eq!(drain(&mut outbox, later), ["later"]);
}

#[test]
fn an_api_server_that_is_away_is_tried_again_and_not_for_ever() {
    let start = Instant::now();
    let mut outbox = Outbox::new(start);
    outbox.happened(event("a", "one"), start);
    outbox.happened(event("a", "two"), start);
    let mut tries = 0;
    for n in 0..60 {
        if next(&mut outbox, start + n * SECOND).is_some() {
            outbox.done(Err(down()), start + n * SECOND);
            tries += 1;
        }
    }
    assert!((5..=7).contains(&tries), "{tries} tries in a minute");
    let mut all = drain(&mut outbox, start + 90 * SECOND);
    all.sort();
    assert_eq!(all, ["one", "two"], "each once");
    outbox.happened(event("a", "three"), start + 90 * SECOND);
    assert!(next(&mut outbox, start + 90 * SECOND).is_some());
    outbox.done(Err(down()), start + 90 * SECOND);
    assert!(drain(&mut outbox, start + 90 * SECOND + PATIENCE).is_empty());
    assert_eq!(outbox.len(), 0);
}

#[test]
fn what_may_not_be_posted_is_dropped() {
    let start = Instant::now();
    let mut outbox = Outbox::new(start);
    outbox.failed(event("a", "one"), "why".to_owned(), start);
    outbox.happened(event("a", "two"), start);
    assert!(next(&mut outbox, start).is_some());
    let forbidden = ApiError::Forbidden { what: "post", reason: "test".to_owned() };
    outbox.done(Err(forbidden), start);
    assert_eq!(drain(&mut outbox, start), ["two"]);
    outbox.failed(event("a", "one"), "why".to_owned(), start);
    assert_eq!(drain(&mut outbox, start), ["one"], "it was never posted");
}

#[test]
fn the_queue_is_bounded_and_progress_goes_first() {
    let start = Instant::now();
    let mut outbox = Outbox::new(start);
    outbox.happened(event("a", "first"), start);
    outbox.progress(event("a", "progress"), start);
    for n in 0..QUEUE {
        outbox.happened(event("a", &n.to_string()), start);
    }
    assert_eq!(outbox.len(), QUEUE);
    assert_eq!(next(&mut outbox, start).as_deref(), Some("0"), "the two oldest are gone");
    assert!(outbox.queue.iter().all(|post| !post.is_progress));
}

#[test]
fn calls_come_in_bursts_and_then_at_a_rate() {
    let start = Instant::now();
    let mut outbox = Outbox::new(start);
    for n in 0..200 {
        outbox.happened(event("a", &n.to_string()), start);
    }
    assert_eq!(drain(&mut outbox, start).len(), 50);
    let mut later = 0;
    for n in 1..=100 {
        later += drain(&mut outbox, start + n * SECOND / 10).len();
    }
    assert_eq!(later, 50, "five a second");
}
