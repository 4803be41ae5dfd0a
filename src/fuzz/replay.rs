//! Replays the corpora: what was found once stays found.

use std::fs;
use std::path::{Path, PathBuf};

use super::TARGETS;

/// Of one target: the corpus is read by people and kept in the repository.
const MOST: usize = 60;
const MAX_BYTES: usize = 16 << 10;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(project(dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort();
    names
}

#[test]
fn every_target_holds_over_its_corpus() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let dir = format!("fuzz/corpus/{name}");
        let files = names(&dir);
        assert!((1..=MOST).contains(&files.len()), "{dir} has {} files", files.len());
        for file in files {
            let file = format!("{dir}/{file}");
            let data = fs::read(project(&file)).unwrap();
            assert!(data.len() <= MAX_BYTES, "{file} is too large for a corpus");
            if std::panic::catch_unwind(|| target(&data)).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "they no longer hold:\n{}", broken.join("\n"));
}

#[test]
fn every_corpus_has_a_target() {
    let known: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz/corpus"), known);
}
