//! Metrics of what comes into the store and what leaves it.

use std::sync::{Arc, LazyLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

use super::activity::Activities;
use super::real::Inner;
use super::substituters::is_same;
use super::{NixError, PushError};
use crate::metrics::register;

static PATHS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Store paths that realisations brought to the node.";
    register(IntCounterVec::new(Opts::new("nixcsi_paths_total", help), &["origin"]))
});

static BYTES: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Bytes of store paths that realisations brought to the node, as archives (NAR).";
    register(IntCounterVec::new(Opts::new("nixcsi_bytes_total", help), &["origin"]))
});

static UPLOADED: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Bytes of store paths that were copied to the cache, as archives (NAR).";
    register(IntCounter::new("nixcsi_upload_bytes_total", help))
});

/// Shown once it is known.
static CACHE_REACHABLE: LazyLock<IntGauge> = LazyLock::new(|| {
    let help = "Whether the cluster's cache answered when it was asked or pushed to last.";
    register(IntGauge::new("nixcsi_cache_reachable", help))
});

/// Registers also what is shown only once it is known.
pub(crate) fn register_metrics() {
    show_metrics();
    LazyLock::force(&CACHE_REACHABLE);
}

pub(super) fn cache_answers(answers: bool) {
    CACHE_REACHABLE.set(answers.into());
}

/// The end of a push. One that failed for a reason of this side says nothing of the cache, and neither does one
/// that is not understood.
pub(super) fn pushed(result: &Result<(), PushError>) {
    match result.as_ref().map_or_else(PushError::end, |()| "ok") {
        "ok" | "refused" | "full" | "key-refused" => cache_answers(true),
        // Another one answers in its place.
        "unreachable" | "host-key" => cache_answers(false),
        _ => {}
    }
}

/// Shows what has not happened yet as zero.
pub(crate) fn show_metrics() {
    for origin in ["cache", "substituter", "built"] {
        add(origin, 0, 0);
    }
    LazyLock::force(&UPLOADED);
}

fn add(origin: &str, paths: u64, bytes: u64) {
    PATHS.with_label_values(&[origin]).inc_by(paths);
    BYTES.with_label_values(&[origin]).inc_by(bytes);
}

/// After a run of Nix's in the node's store, also one that failed: what it fetched and built stays. Nix's own
/// numbers of bytes lack each last part, so the database is asked.
pub(super) async fn brought(nix: &Arc<Inner>, log: &Activities) {
    if log.fetched().is_empty() && log.built().is_empty() {
        return;
    }
    let (fetched, built) = (log.fetched().clone(), log.built().to_vec());
    ask(nix, move |nix| {
        let is_cache = |from: &str| nix.config.cache.as_ref().is_some_and(|c| is_same(c, from));
        let (cache, others): (Vec<_>, Vec<_>) =
            fetched.into_iter().partition(|(_, from)| is_cache(from));
        for (origin, fetched) in [("cache", cache), ("substituter", others)] {
            let paths: Vec<_> = fetched.into_iter().map(|(path, _)| path).collect();
            let sizes = nix.database().sizes(&paths)?;
            add(origin, sizes.len() as u64, sum(&sizes));
        }
        let sizes = nix.database().output_sizes(&built)?;
        add("built", sizes.len() as u64, sum(&sizes));
        Ok(())
    })
    .await;
}

/// After a push that succeeded.
pub(super) async fn uploaded(nix: &Arc<Inner>, copied: Vec<String>) {
    if copied.is_empty() {
        return;
    }
    ask(nix, move |nix| {
        UPLOADED.inc_by(sum(&nix.database().sizes(&copied)?));
        Ok(())
    })
    .await;
}

/// A metric is no reason to fail.
async fn ask(
    nix: &Arc<Inner>,
    count: impl FnOnce(&Inner) -> Result<(), NixError> + Send + 'static,
) {
    let nix = nix.clone();
    match tokio::task::spawn_blocking(move || count(&nix)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "what was copied or built is not counted"),
        Err(panic) => tracing::debug!(%panic, "what was copied or built is not counted"),
    }
}

fn sum(sizes: &[u64]) -> u64 {
    sizes.iter().fold(0, |sum, n| n.saturating_add(sum))
}
