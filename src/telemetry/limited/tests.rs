use std::io;

use proptest::prelude::*;
use tokio::time::advance;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use super::*;

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Written {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Written {
    fn take(&self) -> Vec<String> {
        let text = String::from_utf8(std::mem::take(&mut *lock(&self.0))).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// Logs of this thread, limited, without time and target.
fn logs() -> (Limited, Written, DefaultGuard) {
    let (limited, written) = (Limited::default(), Written::default());
    let lines = tracing_subscriber::fmt::layer().without_time().with_target(false);
    let lines = lines.with_ansi(false).with_writer(written.clone()).with_filter(limited.clone());
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
    (limited, written, guard)
}

fn failed(volume: &str, error: &str, seconds: f64) {
    tracing::warn!(volume, error, seconds, "publish failed");
}

#[tokio::test(start_paused = true)]
async fn the_same_again_is_counted_and_told_when_the_minute_is_over() {
    let (limited, written, _guard) = logs();
    let minding = tokio::spawn(limited.clone().mind());
    for second in 0..30 {
        failed("a", &format!("no answer after {second} s"), f64::from(second));
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!(written.take().len(), 1);
    advance(Duration::from_secs(29)).await;
    tokio::task::yield_now().await;
    assert_eq!(written.take(), [""; 0]);
    advance(Duration::from_secs(3)).await;
    tokio::task::yield_now().await;
    let told = "… and 29 more like it within 29s; the last: publish failed volume=\"a\" error=\"no answer after 29 s\" seconds=29.0";
    let lines = written.take();
    assert!(lines.len() == 1 && lines[0].contains(told), "{lines:?}");
    assert!(lines[0].starts_with(" WARN ") && lines[0].ends_with("more=29"), "{lines:?}");
    // A minute after it was written.
    failed("a", "no answer", 0.0);
    assert_eq!(written.take().len(), 1);
    minding.abort();
}

#[tokio::test(start_paused = true)]
async fn another_thing_another_reason_and_another_place_are_other_causes() {
    let (_limited, written, _guard) = logs();
    for _ in 0..3 {
        failed("a", "no answer", 1.0);
        failed("b", "no answer", 1.0);
        failed("a", "the disk is full", 1.0);
        tracing::error!(volume = "a", error = "no answer", "publish failed");
        tracing::warn!("{} is refused", "x");
    }
    assert_eq!(written.take().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_warning_is_not_limited() {
    let (_limited, written, _guard) = logs();
    for _ in 0..50 {
        tracing::info!(volume = "a", "published");
    }
    assert_eq!(written.take().len(), 50);
}

#[tokio::test(start_paused = true)]
async fn many_things_for_one_reason_write_few_lines() {
    let (limited, written, _guard) = logs();
    let counted = || SUPPRESSED.with_label_values(&["warn"]).get();
    let before = counted();
    for volume in 0..10_000 {
        failed(&format!("csi-{volume}"), "no answer", 1.0);
    }
    assert_eq!(written.take().len(), LINES);
    // Other tests count too.
    assert!(counted() >= before + 9_990);
    limited.flush();
    let lines = written.take();
    assert!(
        lines.len() == 1 && lines[0].contains("… and 9990 more like it within 1s"),
        "{lines:?}"
    );
    assert!(lines[0].contains("volume=\"csi-9999\""), "{lines:?}");
    limited.flush();
    assert_eq!(written.take(), [""; 0]);
    let sites = lock(&limited.0.sites);
    let shares: Vec<_> = sites.0.values().flat_map(Shares::values).collect();
    assert!(shares.len() == 1 && shares[0].written.len() <= LINES);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_hides_no_other_and_there_are_only_so_many() {
    let (limited, written, _guard) = logs();
    let fails = |namespace: &str, volume: &str| {
        tracing::warn!(namespace, volume, "publish failed");
    };
    for volume in 0..100 {
        fails("many", &format!("csi-{volume}"));
    }
    assert_eq!(written.take().len(), LINES);
    fails("one", "csi-one");
    assert_eq!(written.take().len(), 1);
    for namespace in 0..10_000 {
        fails(&format!("ns-{namespace}"), "csi-of-it");
    }
    // Two were there, and those of too many have one share.
    assert_eq!(written.take().len(), NAMESPACES - 2 + LINES);
    advance(MINUTE).await;
    fails("another", "csi-other");
    assert_eq!(written.take().len(), 1);
    let lines = lock(&limited.0.sites).0.values().map(Shares::len).sum::<usize>();
    assert!(lines <= 3, "what is over is forgotten: {lines}");
}

#[tokio::test(start_paused = true)]
async fn a_long_line_is_told_in_part() {
    let (limited, written, _guard) = logs();
    for _ in 0..2 {
        failed("a", &"é".repeat(10_000), 1.0);
    }
    written.take();
    limited.flush();
    assert!(written.take()[0].len() < 2 * LAST);
}

/// A metadata of a real call site, for the pure part.
fn site() -> &'static Metadata<'static> {
    static SITE: LazyLock<&'static Metadata<'static>> = LazyLock::new(|| {
        struct Seen(Arc<Mutex<Option<&'static Metadata<'static>>>>);
        impl<S> Filter<S> for Seen {
            fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
                true
            }
            fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
                *lock(&self.0) = Some(event.metadata());
                false
            }
        }
        let seen = Arc::new(Mutex::new(None));
        let lines = tracing_subscriber::fmt::layer().with_filter(Seen(seen.clone()));
        let logs = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(logs, || tracing::warn!("here"));
        lock(&seen).unwrap()
    });
    *SITE
}

proptest! {
    /// In each minute: no cause twice, few lines, and each line is written or told.
    #[test]
    fn lines_are_bounded_and_none_is_lost(
        events in prop::collection::vec((0_u64..40, 0_u64..20_000), 0..400),
    ) {
        let mut sites = Sites::default();
        let begin = Instant::now();
        let (mut now, mut written, mut told, mut tellings) = (begin, Vec::new(), 0, Vec::new());
        for (cause, pause) in &events {
            now += Duration::from_millis(*pause);
            for rest in sites.over(now, |since, now| now >= since + MINUTE) {
                told += rest.more;
                tellings.push(now);
            }
            if let Verdict::Write = sites.judge((site(), None), *cause, String::new, now) {
                written.push((*cause, now));
            }
            prop_assert!(sites.next().is_none_or(|next| next > now));
        }
        told += sites.over(now, |_, _| true).into_iter().map(|rest| rest.more).sum::<u64>();
        prop_assert_eq!(written.len() as u64 + told, events.len() as u64);
        for (first, (cause, at)) in written.iter().enumerate() {
            let minute: Vec<_> =
                written[first..].iter().take_while(|(_, other)| *other < *at + MINUTE).collect();
            prop_assert!(minute.len() <= LINES);
            prop_assert_eq!(minute.iter().filter(|(other, _)| other == cause).count(), 1);
        }
        for pair in tellings.windows(2) {
            prop_assert!(pair[1] >= pair[0] + MINUTE);
        }
    }
}
