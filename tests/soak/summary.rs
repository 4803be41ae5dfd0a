//! What it came to.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::lab::Node;
use crate::world::World;

impl World {
    /// Of all nodes that there were.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let before = self.counts.before.lock().unwrap().get(name).copied().unwrap_or_default();
        before + metrics(&*self.node().await).get(name).copied().unwrap_or_default()
    }

    pub(crate) async fn summary(&self) -> String {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        let rounds = of(&counts.rounds);
        let seconds = self.time.as_secs();
        let mut text = format!(
            "soak: {rounds} rounds in {seconds} s, {} publishes a minute, {} reads, {} collections, {} \
             paths deleted, {} uploads, {} kills, {} foreign collections, {} pieces of garbage",
            rounds * 60 / seconds.max(1),
            of(&counts.reads),
            self.metric(CYCLES_OK).await,
            self.metric("nixcsi_gc_deleted_paths_total").await,
            self.metric("nixcsi_uploads_total{outcome=\"ok\"}").await,
            of(&counts.kills),
            of(&counts.foreign),
            of(&counts.garbage),
        );
        let notes = counts.notes.lock().unwrap();
        text.extend(notes.iter().map(|(note, times)| format!("\n  {times} × {note}")));
        text
    }
}

const CYCLES_OK: &str = "nixcsi_gc_cycles_total{outcome=\"ok\"}";

/// Those that count.
pub(crate) fn metrics(node: &Node) -> BTreeMap<String, u64> {
    let text = node.metrics();
    let samples = text.lines().filter(|line| line.starts_with("nixcsi_"));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    let counts = samples.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    counts.collect()
}

/// Digits and hashes are no difference between two texts.
pub(crate) fn without_names(text: &str) -> String {
    let word = |word: &str| {
        let digits = word.chars().filter(char::is_ascii_digit).count();
        if word.contains("/nix/") || word.contains("/tmp/") || digits > 1 { "…" } else { word }
            .to_owned()
    };
    let words: Vec<_> = text.split([' ', '\n']).map(word).collect();
    words.join(" ").chars().take(300).collect()
}
