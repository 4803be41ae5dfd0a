//! One warning or error per cause and minute: the others like it are counted, and told when the minute is over.
//!
//! A cause is a call site with what its text fields say, which name what is concerned. Numbers are no part of
//! it, and no digits of its message and reasons: they differ from one time to the next. A call site writes at
//! most [`LINES`] lines a minute, whatever there is to name, and one more that tells of the rest. Where a line names
//! a namespace, that is for each of [`NAMESPACES`] of them and for all others together: nobody's lines hide another's.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use prometheus::{IntCounterVec, Opts};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use crate::lock::lock;
use crate::metrics::register;

const MINUTE: Duration = Duration::from_mins(1);
/// Of a call site in a minute. Enough to see that it is many, few enough to read.
const LINES: usize = 10;
const NAMESPACES: usize = 50;
/// Bytes of the last line that was not written, as it is told.
const LAST: usize = 500;
/// Of what tells of the others; it is not limited.
const TARGET: &str = "nix_csi::telemetry";
/// Fields that say why, and name nothing.
const REASONS: [&str; 6] = ["message", "error", "err", "reason", "why", "text"];

static SUPPRESSED: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Log lines that were not written, since others like them were a moment ago.";
    register(IntCounterVec::new(Opts::new("nixcsi_log_suppressed_total", help), &["level"]))
});

/// From the start: an alert counts increases.
pub(super) fn show() {
    for level in ["warn", "error"] {
        SUPPRESSED.with_label_values(&[level]).inc_by(0);
    }
}

/// A filter for what writes lines. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Limited(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sites: Mutex<Sites>,
    begun: Notify,
    hasher: RandomState,
}

impl Limited {
    /// Tells what was not written, minute by minute. It has no end.
    pub(super) async fn mind(self) {
        loop {
            let next = lock(&self.0.sites).next();
            match next {
                Some(end) => sleep_until(end).await,
                None => self.0.begun.notified().await,
            }
            self.tell(|since, now| now >= since + MINUTE);
        }
    }

    /// Tells all of it: the process ends.
    pub(super) fn flush(&self) {
        self.tell(|_, _| true);
    }

    fn tell(&self, is_over: impl Fn(Instant, Instant) -> bool) {
        let now = Instant::now();
        // Not under the lock, which each line takes.
        let over = lock(&self.0.sites).over(now, is_over);
        for rest in over {
            rest.tell();
        }
    }
}

impl<S> Filter<S> for Limited {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    // tracing-subscriber 0.3: where all is known to be enabled, what `event_enabled` says is left for the next
    // event.
    fn callsite_enabled(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let of = event.metadata();
        if *of.level() > Level::WARN || of.target() == TARGET {
            return true;
        }
        let hasher = &self.0.hasher;
        let mut line = Line { cause: hasher.build_hasher(), text: String::new(), namespace: None };
        event.record(&mut line);
        let cause = line.cause.finish();
        let namespace = line.namespace.map(|name| hasher.hash_one(name));
        let told = || cut(line.text, LAST);
        let verdict = lock(&self.0.sites).judge((of, namespace), cause, told, Instant::now());
        match verdict {
            Verdict::Write => return true,
            Verdict::Suppress { is_first } if is_first => self.0.begun.notify_one(),
            Verdict::Suppress { .. } => {}
        }
        SUPPRESSED.with_label_values(&[level_of(*of.level())]).inc();
        false
    }
}

fn level_of(level: Level) -> &'static str {
    if level == Level::ERROR { "error" } else { "warn" }
}

fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

/// A line on its way: its cause, and how it is told if it is the last of those that are not written.
struct Line<H> {
    cause: H,
    text: String,
    namespace: Option<String>,
}

impl<H: Hasher> Line<H> {
    fn say(&mut self, field: &Field, value: &dyn Debug) {
        let before = self.text.len();
        let _ = match field.name() {
            "message" => write!(self.text, "{value:?} "),
            name => write!(self.text, "{name}={value:?} "),
        };
        let said = &self.text[before..];
        if REASONS.contains(&field.name()) {
            let lasting = said.bytes().filter(|byte| !byte.is_ascii_digit());
            self.cause.write(&lasting.collect::<Vec<_>>());
        } else {
            self.cause.write(said.as_bytes());
        }
        if field.name() == "namespace" {
            self.namespace = Some(said.to_owned());
        }
        self.cause.write_u8(0xff);
    }

    fn number(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.text, "{}={value:?} ", field.name());
    }
}

impl<H: Hasher> Visit for Line<H> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.say(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.number(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.number(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field, &value);
    }
}

enum Verdict {
    Write,
    /// The first since the rest was told.
    Suppress {
        is_first: bool,
    },
}

/// What was written a moment ago. Pure; there are no more sites than the program has.
#[derive(Default)]
struct Sites(HashMap<Identifier, Shares>);

/// Of one site, by namespace; what names none, or one of too many, is together.
type Shares = HashMap<Option<u64>, Site>;

#[derive(Default)]
struct Site {
    /// Causes of the lines of the last minute, [`LINES`] at most.
    written: Vec<(u64, Instant)>,
    rest: Option<Rest>,
}

impl Site {
    /// It has something to tell, or has told it a moment ago.
    fn is_busy(&self, now: Instant) -> bool {
        self.rest.is_some() || self.written.iter().any(|(_, at)| now < *at + MINUTE)
    }
}

/// What was not written.
#[derive(Debug)]
struct Rest {
    of: &'static Metadata<'static>,
    since: Instant,
    until: Instant,
    more: u64,
    last: String,
}

impl Sites {
    fn judge(
        &mut self,
        (of, namespace): (&'static Metadata<'static>, Option<u64>),
        cause: u64,
        told: impl FnOnce() -> String,
        now: Instant,
    ) -> Verdict {
        let shares = self.0.entry(of.callsite()).or_default();
        if !shares.contains_key(&namespace) {
            shares.retain(|_, site| site.is_busy(now));
        }
        let is_one_too_many = shares.len() >= NAMESPACES && !shares.contains_key(&namespace);
        let namespace = namespace.filter(|_| !is_one_too_many);
        let Site { written, rest } = shares.entry(namespace).or_default();
        written.retain(|(_, at)| now < *at + MINUTE);
        if written.len() < LINES && written.iter().all(|(other, _)| *other != cause) {
            written.push((cause, now));
            return Verdict::Write;
        }
        let is_first = rest.is_none();
        let last = told();
        let rest =
            rest.get_or_insert(Rest { of, since: now, until: now, more: 0, last: String::new() });
        (rest.more, rest.until, rest.last) = (rest.more + 1, now, last);
        Verdict::Suppress { is_first }
    }

    /// When the first rest is to be told.
    fn next(&self) -> Option<Instant> {
        let sites = self.0.values().flat_map(Shares::values);
        sites.filter_map(|site| Some(site.rest.as_ref()?.since + MINUTE)).min()
    }

    /// Takes what is to be told.
    fn over(&mut self, now: Instant, is_over: impl Fn(Instant, Instant) -> bool) -> Vec<Rest> {
        let sites = self.0.values_mut().flat_map(Shares::values_mut);
        sites.filter_map(|site| site.rest.take_if(|rest| is_over(rest.since, now))).collect()
    }
}

impl Rest {
    fn tell(self) {
        let Self { of, since, until, more, last } = self;
        let time = humantime::format_duration(Duration::from_secs((until - since).as_secs() + 1));
        let (site, last) = (of.target(), last.trim_end());
        if *of.level() == Level::ERROR {
            tracing::error!(target: TARGET, site, more, "… and {more} more like it within {time}; the last: {last}");
        } else {
            tracing::warn!(target: TARGET, site, more, "… and {more} more like it within {time}; the last: {last}");
        }
    }
}

#[cfg(test)]
mod tests;
