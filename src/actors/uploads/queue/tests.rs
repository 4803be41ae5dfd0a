use proptest::prelude::*;

use super::types::{BATCH, MOST};
use super::*;

const START: Moment = Duration::from_secs(1_000_000);
const ERROR: &str = "it is away";
/// No jitter.
const MIDDLE: f64 = 0.5;

fn path(n: usize) -> StorePath {
    StorePath::from_base_name(&format!("{n:0>32}-p")).unwrap()
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// A queue in which these wait.
fn queue(attempts: u32, paths: usize) -> Queue {
    let mut queue = Queue::new(attempts);
    for n in 0..paths {
        assert_eq!(queue.offer(&path(n), START), Offered::New);
        queue.kept(Record::new(path(n), START), START);
    }
    queue
}

#[test]
fn what_is_there_is_not_taken_twice_and_what_is_not_kept_is_not_sent() {
    let mut queue = Queue::new(3);
    assert_eq!(queue.offer(&path(1), START), Offered::New);
    assert_eq!(queue.offer(&path(1), START), Offered::Known);
    assert_eq!(queue.take(START), None);
    queue.kept(Record::new(path(1), START), START);
    assert_eq!(queue.take(START), Some(vec![path(1)]));
    assert_eq!(queue.offer(&path(1), START), Offered::Known);
    assert_eq!(queue.take(START), None);
    queue.uploaded(&path(1));
    assert_eq!(queue.offer(&path(1), START), Offered::New);
}

#[test]
fn a_batch_is_bounded_and_so_is_the_queue() {
    let mut queue = queue(3, MOST);
    assert_eq!(queue.offer(&path(MOST), START), Offered::Full);
    let batch = queue.take(START).unwrap();
    assert_eq!(batch, (0..BATCH).map(path).collect::<Vec<_>>(), "in their order");
    assert_eq!(queue.counts(), Counts { waiting: MOST - BATCH, sending: BATCH, dead: 0 });
}

#[test]
fn a_cache_that_is_away_holds_up_all_for_longer_and_longer() {
    let (mut queue, mut now, mut waits) = (queue(20, 100), START, Vec::new());
    for _ in 0..9 {
        let batch = queue.take(now).unwrap();
        queue.cache_failed(&batch, ERROR, now, MIDDLE);
        let next = queue.next(true).unwrap();
        assert_eq!(queue.take(next.checked_sub(seconds(1)).unwrap()), None);
        waits.push(next.saturating_sub(now).as_secs());
        now = next;
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    let batch = queue.take(now).unwrap();
    queue.uploaded(&batch[0]);
    let batch = queue.take(now).unwrap();
    queue.cache_failed(&batch, ERROR, now, MIDDLE);
    assert_eq!(queue.next(true), Some(now + seconds(5)), "it starts again");
}

#[test]
fn jitter_is_a_fifth_up_and_down() {
    assert_eq!((backoff(1, 0.0), backoff(1, 1.0)), (seconds(4), seconds(6)));
    assert_eq!((backoff(99, 0.0), backoff(99, 1.0)), (seconds(240), seconds(360)));
}

#[test]
fn an_outage_is_outlasted_for_a_week() {
    let mut queue = queue(1, 1);
    let week = START + OUTAGE;
    for (now, is_dead) in
        [(START, false), (week.checked_sub(seconds(1)).unwrap(), false), (week, true)]
    {
        let batch = queue.take(now + seconds(600)).unwrap();
        let records = queue.cache_failed(&batch, ERROR, now, MIDDLE);
        assert_eq!(records[0].dead, is_dead, "{now:?}");
    }
}

fn refuse(queue: &mut Queue, batch: &[StorePath], now: Moment) -> Vec<Record> {
    batch.iter().map(|path| queue.refused(path, ERROR, now, MIDDLE).unwrap()).collect()
}

#[test]
fn a_refused_batch_is_tried_one_by_one() {
    let mut queue = queue(2, 3);
    let batch = queue.take(START).unwrap();
    queue.split(&batch, START);
    assert_eq!(queue.take(START), Some(vec![path(0)]));
    queue.uploaded(&path(0));
    assert_eq!(queue.take(START), Some(vec![path(1)]));
    let record = queue.refused(&path(1), "no", START, MIDDLE).unwrap();
    assert_eq!((record.attempts, record.dead), (1, false));
    assert_eq!(record.next_attempt, Some((START + seconds(5)).as_secs()));
    // It does not hold up the others.
    assert_eq!(queue.take(START), Some(vec![path(2)]));
    queue.uploaded(&path(2));
    let later = START + seconds(5);
    assert_eq!(queue.take(later), Some(vec![path(1)]));
    let record = queue.refused(&path(1), "no", later, MIDDLE).unwrap();
    assert!(record.dead);
    assert_eq!(queue.counts().dead, 1);
}

#[test]
fn dead_ones_are_sent_when_somebody_says_so_or_forgotten_after_a_week() {
    let mut queue = queue(1, 3);
    let batch = queue.take(START).unwrap();
    let dead = refuse(&mut queue, &batch, START);
    assert_eq!(dead.iter().filter(|r| r.dead && r.next_attempt.is_none()).count(), 3);
    assert_eq!(queue.take(START + seconds(3600)), None);
    assert_eq!(queue.retry(&[path(1), path(7)], START).len(), 1);
    // Also while the cache was away a moment ago.
    assert_eq!(queue.take(START), Some(vec![path(1)]));
    assert!(queue.retry(&[path(1)], START).is_empty(), "it is being sent");
    assert_eq!(queue.retry(&[], START).len(), 2);
    let batch = queue.take(START).unwrap();
    refuse(&mut queue, &batch, START);
    let week = START + seconds(7 * 24 * 3600);
    assert!(queue.forget(week.checked_sub(seconds(1)).unwrap()).is_empty());
    assert_eq!(queue.next(true), Some(week));
    assert_eq!(queue.forget(week).len(), 2);
    assert_eq!(queue.counts(), Counts { waiting: 0, sending: 1, dead: 0 });
}

#[test]
fn a_record_comes_back_where_it_was() {
    let mut before = queue(1, 2);
    let batch = before.take(START).unwrap();
    let records = before.cache_failed(&batch, ERROR, START, MIDDLE);
    let mut after = Queue::new(1);
    for record in records {
        after.restore(record, START);
    }
    assert_eq!(after.take(START), None);
    assert_eq!(after.next(true), Some(START + seconds(5)));
    let later = START + seconds(5);
    let batch = after.take(later).unwrap();
    let dead = refuse(&mut after, &batch, later);
    // A clock that ran backwards in between keeps nothing for years.
    let mut last = Queue::new(2);
    last.restore(dead[0].clone(), later + seconds(24 * 3600));
    assert_eq!(last.next(true), Some(later + seconds(7 * 24 * 3600)));
    let mut odd = dead[1].clone();
    (odd.dead, odd.next_attempt) = (false, Some(u64::from(u32::MAX)));
    last.restore(odd, START);
    assert_eq!(last.next(true), Some(START + seconds(360)));
}

/// With no slot, what is due must not wake anybody again and again.
#[test]
fn without_a_slot_nothing_is_next() {
    let queue = queue(2, 1);
    assert_eq!(queue.next(false), None);
    assert_eq!(queue.next(true), Some(START));
}

proptest! {
    /// In any order of events each closure is in one place, and the counts say so.
    #[test]
    fn nothing_is_lost_or_sent_twice(events in prop::collection::vec((0..8u8, 0..6usize), 1..200)) {
        let (mut queue, mut now) = (Queue::new(3), START);
        let mut sent: Vec<Vec<StorePath>> = Vec::new();
        for (event, n) in events {
            match event {
                0 => {
                    if queue.offer(&path(n), now) == Offered::New {
                        queue.kept(Record::new(path(n), now), now);
                    }
                }
                1 | 2 => sent.extend(queue.take(now)),
                3 => now += seconds(30),
                4 => drop(queue.retry(&[], now)),
                event => {
                    let Some(batch) = sent.pop() else { continue };
                    match (event, &batch[..]) {
                        (5, _) => batch.iter().for_each(|path| queue.uploaded(path)),
                        (6, [path]) => drop(queue.refused(path, ERROR, now, MIDDLE)),
                        (6, _) => queue.split(&batch, now),
                        _ => drop(queue.cache_failed(&batch, ERROR, now, MIDDLE)),
                    }
                }
            }
            let flying: Vec<_> = sent.iter().flatten().collect();
            let mut distinct = flying.clone();
            distinct.sort();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), flying.len(), "sent twice at once");
            let counts = queue.counts();
            prop_assert_eq!(counts.sending, flying.len());
            prop_assert_eq!(counts.waiting, queue.waiting.len());
            prop_assert_eq!(counts.dead, queue.dead.len());
        }
    }
}
