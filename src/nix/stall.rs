//! Notices a command that waits for a store over ssh and hears nothing: unlike a download, that has no
//! time limit in Nix, and a daemon that hangs behind a live sshd keeps it waiting for ever.

use std::sync::{Arc, Mutex};

use tokio::time::{Instant, sleep_until};

use super::Limit;
use super::internal_log::LogReader;

use crate::lock::lock;

/// When any command last said something: one may wait in silence for what another fetches.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Option<Instant>>>);

/// When a command last said something, and whether it may be silent now.
pub(super) struct Pulse(Mutex<Beat>, Heard);

#[derive(Clone, Copy)]
struct Beat {
    last: Instant,
    /// A builder runs, or a lock is waited for: those have limits of their own.
    may_be_silent: bool,
}

impl Pulse {
    pub(super) fn new(heard: Heard) -> Self {
        Self(Mutex::new(Beat { last: Instant::now(), may_be_silent: false }), heard)
    }

    /// A line was read.
    pub(super) fn beat(&self, log: &LogReader) {
        let beat = Beat { last: Instant::now(), may_be_silent: log.may_be_silent() };
        *lock(&self.0) = beat;
        *lock(&self.1.0) = Some(beat.last);
    }

    fn now(&self) -> Beat {
        let Beat { last, may_be_silent } = *lock(&self.0);
        let heard = *lock(&self.1.0);
        Beat { last: heard.map_or(last, |heard| heard.max(last)), may_be_silent }
    }

    /// Ends when nothing was heard for `limit` that should have been; never if that is zero.
    pub(super) async fn stops(&self, limit: Limit) {
        if limit.most.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let Beat { last, may_be_silent } = self.now();
            let end = if may_be_silent { Instant::now() } else { last } + limit.most;
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nix::Progress;

    const LIMIT: Limit = Limit::new("--stall-timeout", Duration::from_secs(60));

    async fn stops_within(pulse: &Pulse, seconds: u64) -> bool {
        tokio::time::timeout(Duration::from_secs(seconds), pulse.stops(LIMIT)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_but_not_that_of_a_builder_or_a_lock() {
        let (pulse, mut log, mut progress) =
            (Pulse::new(Heard::default()), LogReader::default(), Progress::default());
        let mut says = |line: &str| {
            log.line(format!("@nix {line}").as_bytes(), &mut progress);
            pulse.beat(&log);
        };
        assert!(!stops_within(&pulse, 50).await);
        says(r#"{"action":"start","id":1,"level":4,"type":0,"text":"querying info","fields":[]}"#);
        assert!(!stops_within(&pulse, 50).await);
        assert!(stops_within(&pulse, 20).await);
        for kind in [105, 110] {
            let name = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x.drv";
            says(&format!(
                r#"{{"action":"start","id":2,"level":3,"type":{kind},"text":"","fields":["{name}"]}}"#
            ));
            assert!(!stops_within(&pulse, 600).await);
            says(r#"{"action":"stop","id":2}"#);
            assert!(!stops_within(&pulse, 50).await);
            assert!(stops_within(&pulse, 20).await);
        }
        let other = Pulse::new(pulse.1.clone());
        other.beat(&LogReader::default());
        assert!(!stops_within(&pulse, 50).await, "another command hears something");
        says(r#"{"action":"msg","level":0,"msg":"waiting for the big garbage collector lock..."}"#);
        assert!(!stops_within(&pulse, 600).await);
    }
}
