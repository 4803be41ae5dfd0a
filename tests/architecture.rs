//! The rules of the house that no lint knows: which room may name what, and what a file may hold.
//! `ARCHITECTURE.md` says why.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::{Path, PathBuf};

struct Source {
    /// From the project's root, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Line number and code of each line outside comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(n, line)| (n + 1, line));
        lines.map(|(n, line)| (n, line.split("//").next().unwrap_or_default()))
    }

    fn is_test(&self, line: usize) -> bool {
        self.path.starts_with("tests/") || line > self.tests_begin()
    }

    /// Where the file's unit tests begin: at once in a module of tests, past the end without any.
    fn tests_begin(&self) -> usize {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return 0;
        }
        let begin = self.text.lines().position(|line| line.trim() == "#[cfg(test)]");
        begin.unwrap_or_else(|| self.text.lines().count())
    }

    fn within(&self, places: &[&str]) -> bool {
        places.iter().any(|place| match place.strip_suffix('/') {
            Some(_) => self.path.starts_with(place),
            None => self.path == *place,
        })
    }
}

fn sources(dir: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(dir), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no sources below {dir}");
    let source = |path: PathBuf| Source {
        path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(path).unwrap(),
    };
    // This file names what it forbids.
    let found = found.into_iter().map(source);
    found.filter(|source| source.path != "tests/architecture.rs").collect()
}

fn everything() -> Vec<Source> {
    [sources("src"), sources("tests")].into_iter().flatten().collect()
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Whether `code` holds `word` as a word of its own: `kube` is in `kube::Client`, not in `kubelet`.
fn names(code: &str, word: &str) -> bool {
    let part_of_a_word = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(part_of_a_word)
            && !code[at + word.len()..].starts_with(part_of_a_word)
    })
}

/// Fails with every line of `sources` that `is_bad`.
fn forbid(rule: &str, sources: &[Source], is_bad: impl Fn(&Source, usize, &str) -> bool) {
    let mut bad = Vec::new();
    for source in sources {
        for (n, code) in source.code().filter(|(n, code)| is_bad(source, *n, code)) {
            bad.push(format!("{}:{n}: {}", source.path, code.trim()));
        }
    }
    assert!(bad.is_empty(), "{rule}:\n{}", bad.join("\n"));
}

fn only_in(word: &str, places: &[&str]) {
    let rule = format!("`{word}` is named only in {}", places.join(", "));
    forbid(&rule, &sources("src"), |source, _, code| names(code, word) && !source.within(places));
}

/// The room does not know the others; its own tests may.
fn knows_none_of(room: &str, others: &[&str]) {
    let rule = format!("src/{room} knows none of {}", others.join(", "));
    forbid(&rule, &sources(&format!("src/{room}")), |source, n, code| {
        !source.is_test(n)
            && others.iter().any(|other| {
                names(code, &format!("crate::{other}"))
                    || names(code, &format!("super::super::{other}"))
            })
    });
}

#[test]
fn a_framework_is_named_in_its_own_room_only() {
    only_in("actix", &["src/actors/", "src/app.rs"]);
    only_in("actix_rt", &["src/actors/", "src/app.rs"]);
    only_in("tonic", &["src/grpc/", "src/telemetry/collector.rs"]);
    only_in("kube", &["src/k8s/"]);
    only_in("opentelemetry", &["src/telemetry/", "src/trace.rs"]);
    only_in("k8s_openapi", &["src/k8s/"]);
}

#[test]
fn processes_and_mounts_are_made_in_nix_and_mount_only() {
    let rooms = ["src/nix/", "src/mount/"];
    only_in("tokio::process", &rooms);
    forbid(
        "processes are started in the rooms nix and mount",
        &sources("src"),
        |source, _, code| {
            let named = names(code, "process::Command")
                || names(code, "std::process") && code.contains('{') && names(code, "Command");
            named && !source.within(&["src/nix/", "src/mount/", "src/jail/"])
        },
    );
    only_in("rustix::mount", &["src/mount/", "src/jail/"]);
    only_in("unsafe_code", &["src/mount/sys.rs", "src/jail/sys.rs"]);
    forbid("no shell: children get argument vectors", &sources("src"), |source, n, code| {
        !source.is_test(n) && code.contains("\"sh\"")
    });
}

#[test]
fn rooms_know_only_the_rooms_below_them() {
    let above_actors = ["grpc", "http", "cli", "app", "config"];
    let above_nix = [&["actors"], &above_actors[..]].concat();
    let all = ["model", "nix", "mount", "actors", "grpc", "k8s", "http", "cli", "app", "config"];
    knows_none_of("jail", &all);
    knows_none_of("model", &[&["nix", "mount", "k8s"], &above_nix[..]].concat());
    knows_none_of("nix", &[&["mount", "k8s"], &above_nix[..]].concat());
    knows_none_of("mount", &[&["k8s"], &above_nix[..]].concat());
    knows_none_of("k8s", &[&["nix", "mount"], &above_nix[..]].concat());
    knows_none_of("actors", &above_actors);
    knows_none_of("grpc", &["http", "cli", "app", "config"]);
}

#[test]
fn no_file_is_longer_than_300_lines_without_its_tests() {
    let sources = sources("src");
    let long = sources.iter().filter(|source| source.tests_begin() > 300);
    let long = long.map(|source| format!("{}: {} lines", source.path, source.tests_begin()));
    let long = long.collect::<Vec<_>>();
    assert!(long.is_empty(), "split these:\n{}", long.join("\n"));
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let all = everything();
    for word in ["#[ignore", "todo!", "unimplemented!", "dbg!"] {
        forbid(&format!("no `{word}`"), &all, |_, _, code| code.contains(word));
    }
}

/// A sleep is a race that has not been lost yet. Paused time is no sleep: `start_paused`.
#[test]
fn tests_do_not_sleep() {
    let all = everything();
    forbid("tests wait for events", &all, |source, n, code| {
        source.is_test(n)
            && names(code, "sleep")
            && code.contains("sleep(")
            && !source.text.contains("start_paused")
    });
}
