//! What metrics cost: a scrape, and what is counted of each publish.

use std::time::Duration;

use nix_csi::metrics::SECONDS;
use prometheus::{HistogramOpts, HistogramVec};
use tokio::time::Instant;

use crate::Bench;
use crate::closures::Closure;
use crate::report::Row;

const SCRAPES: usize = 20;
/// Of what is timed in a row, so that reading the clock costs next to nothing.
const OBSERVED: u32 = 100_000;

impl Bench<'_> {
    /// What Prometheus does every half minute: how long it waits, and for how much.
    pub fn scrapes(&mut self, name: &'static str, closure: &'static str) {
        for _ in 0..SCRAPES {
            let began = Instant::now();
            self.node.metrics();
            self.report.add(Row::ours(name, closure), began.elapsed());
        }
        let text = self.node.metrics();
        eprintln!("{name}: {} series, {} bytes", series(&text).count(), text.len());
    }

    /// Publishes as they are, beside the time that all their observations take, each with its labels looked up,
    /// which most of them don't do.
    pub async fn observations(&mut self, closure: &Closure, rounds: usize) {
        let before = observed(&self.node.metrics());
        for _ in 0..rounds {
            let volume = self.volume(&closure.variants[0]);
            self.publish(Row::ours("publish-warm-observed", closure.size.name), &volume).await;
            self.unpublish(Row::ours("unpublish-observed", closure.size.name), &volume).await;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let made =
            (observed(&self.node.metrics()) - before) as u32 / u32::try_from(rounds).unwrap();
        eprintln!("{made} observations of a publish and its unpublish");
        let each = one_observation();
        for _ in 0..rounds {
            let row = Row::other("publish-warm-observed", closure.size.name, "observations alone");
            self.report.add(row, each * made);
        }
    }
}

fn series(text: &str) -> impl Iterator<Item = (&str, f64)> {
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(name, value)| (name, value.parse().unwrap()))
}

/// A message is counted in and out of its mailbox, and seen waiting and handled: each histogram stands for as much.
fn observed(text: &str) -> f64 {
    let of = |(name, value): (&str, f64)| {
        let name = name.split('{').next().unwrap();
        match name {
            _ if name.ends_with("_seconds_count") => 2.0 * value,
            _ if name.starts_with("nixcsi_") && name.ends_with("_total") => value,
            _ => 0.0,
        }
    };
    series(text).map(of).sum()
}

fn one_observation() -> Duration {
    let opts = HistogramOpts::new("of_the_benchmark", "-").buckets(SECONDS.to_vec());
    let histogram = HistogramVec::new(opts, &["actor", "message"]).unwrap();
    let began = Instant::now();
    for n in 0..OBSERVED {
        let value = f64::from(n) / 1000.0;
        histogram.with_label_values(&["volume", "Publish"]).observe(value);
    }
    began.elapsed() / OBSERVED
}
