//! Metrics of what comes into the store and what leaves it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts};

use super::activity::Activities;
use super::db::Database;
use super::real::Inner;
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
    BYTES.with_label_values(&[origin]).inc_by(bytes);
    PATHS.with_label_values(&[origin]).inc_by(paths);
}

/// After a run of Nix's in the node's store, also one that failed: what it fetched and built stays. Nix's own
/// numbers of bytes lack each last part, so the database is asked. Nobody waits for it.
pub(super) fn brought(nix: &Arc<Inner>, log: &Activities) {
    if log.fetched().is_empty() && log.built().is_empty() {
        return;
    }
    let (fetched, built) = (log.fetched().clone(), log.built().to_vec());
    let counting = ask(nix.clone(), move |nix| {
        let is_cache = |from: &str| nix.is_cache(from);
        for (origin, paths) in origins(&nix.database().aside(), fetched, &built, is_cache)? {
            add(origin, paths.len() as u64, sum(&paths));
        }
        Ok(())
    });
    tokio::spawn(counting);
}

type Sizes = Vec<(String, u64)>;

/// A path of which a fetch failed and that was then built was built.
fn origins(
    database: &Database,
    mut fetched: HashMap<String, String>,
    built: &[String],
    is_cache: impl Fn(&str) -> bool,
) -> Result<[(&'static str, Sizes); 3], NixError> {
    let built = database.output_sizes(built)?;
    for (path, _) in &built {
        fetched.remove(path);
    }
    let (cache, others): (Vec<_>, Vec<_>) =
        fetched.into_iter().partition(|(_, from)| is_cache(from));
    let sizes = |of: Vec<(String, String)>| {
        database.sizes(&of.into_iter().map(|(path, _)| path).collect::<Vec<_>>())
    };
    Ok([("cache", sizes(cache)?), ("substituter", sizes(others)?), ("built", built)])
}

/// After a push that succeeded. Nobody waits for it.
pub(super) fn uploaded(nix: &Arc<Inner>, copied: Vec<String>) {
    if copied.is_empty() {
        return;
    }
    let counting = ask(nix.clone(), move |nix| {
        UPLOADED.inc_by(sum(&nix.database().aside().sizes(&copied)?));
        Ok(())
    });
    tokio::spawn(counting);
}

/// A metric is no reason to fail.
async fn ask(nix: Arc<Inner>, count: impl FnOnce(&Inner) -> Result<(), NixError> + Send + 'static) {
    match tokio::task::spawn_blocking(move || count(&nix)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "what was copied or built is not counted"),
        Err(panic) => tracing::debug!(%panic, "what was copied or built is not counted"),
    }
}

fn sum(sizes: &[(String, u64)]) -> u64 {
    sizes.iter().fold(0, |sum, (_, n)| n.saturating_add(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::db::tests::{path, store};

    #[test]
    fn what_was_built_after_a_fetch_that_failed_was_not_fetched() {
        let dir = tempfile::tempdir().unwrap();
        let database = store(dir.path());
        let [x, y, b] = [('a', "x"), ('c', "x"), ('b', "x")].map(|(l, n)| path(l, n).to_string());
        let connection = rusqlite::Connection::open(database.file()).unwrap();
        connection.execute("update DerivationOutputs set path = ?1", [&b]).unwrap();
        let from = |url: &str| url.to_owned();
        let fetched = HashMap::from([
            (x.clone(), from("https://cache")),
            (y.clone(), from("https://other")),
            (b.clone(), from("https://cache")),
        ]);
        let derivations = [x.clone(), y.clone()];
        let found = origins(&database, fetched, &derivations, |url| url == "https://cache");
        let expected =
            [("cache", vec![(x, 70)]), ("substituter", vec![(y, 10)]), ("built", vec![(b, 20)])];
        assert_eq!(found.unwrap(), expected);
    }
}
