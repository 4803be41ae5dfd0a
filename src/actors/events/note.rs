//! What is said.

use std::time::Duration;

use super::Facts;
use crate::model::Source;
use crate::nix::{Origin, Progress, Stage};

/// Enough to know which one it is.
const SOURCE: usize = 120;

pub(super) fn mounted(volume: &str, facts: &Facts) -> String {
    let Facts { source, root, paths, bytes, seconds, origin } = facts;
    let origin = match origin {
        Origin::Present => "was in the node's store",
        Origin::Substituted => "fetched",
        Origin::Built => "built",
    };
    let plural = if *paths == 1 { "" } else { "s" };
    let of = match source {
        // It is the root.
        Source::StorePath(_) => String::new(),
        Source::FlakeRef(_) => format!(" of flakeRef {}", short(source)),
        // Its text is in the pod.
        Source::NixExpr(_) => " of nixExpr".to_owned(),
    };
    format!(
        "volume {volume}: mounted {root}{of}: {paths} store path{plural}, {}, {origin}, in {}",
        size(*bytes),
        time(*seconds),
    )
}

/// Of the volumes of one pod that wait, by name; `None`: its build has ended, or not begun.
pub(super) fn waiting(volumes: &[(String, Option<Progress>)], since: Duration) -> String {
    let of = |progress: &Option<Progress>| match progress {
        None => "preparing".to_owned(),
        Some(progress) => match progress.stage {
            Stage::QueuedEvaluation | Stage::QueuedBuild => "waits for its turn".to_owned(),
            Stage::Evaluating => "evaluating".to_owned(),
            Stage::Building => format!("fetching and building: {progress}"),
        },
    };
    let all: Vec<_> =
        volumes.iter().map(|(name, progress)| format!("volume {name}: {}", of(progress))).collect();
    format!("{}; {} so far", all.join("; "), time(since.as_secs_f64()))
}

pub(super) fn failed(volume: &str, text: &str) -> String {
    format!("volume {volume}: {text}")
}

fn short(source: &Source) -> String {
    let text = source.public_text();
    let cut: String = text.chars().take(SOURCE).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

/// SI units, as file managers and Nix itself have them.
fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    let steps = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    match steps.into_iter().find(|(step, _)| bytes >= *step) {
        Some((step, unit)) => format!("{:.1} {unit}", bytes / step),
        None => format!("{bytes} bytes"),
    }
}

fn time(seconds: f64) -> String {
    match seconds {
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StorePath;

    #[test]
    fn a_mounted_volume_says_what_it_is_and_where_it_came_from() {
        let root =
            StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello-2.12").unwrap();
        let facts = Facts {
            source: Source::FlakeRef("github:o/r#hello".to_owned()),
            root,
            paths: 12,
            bytes: 48_230_000,
            seconds: 14.2,
            origin: Origin::Built,
        };
        let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello-2.12";
        assert_eq!(
            mounted("nix", &facts),
            format!(
                "volume nix: mounted {path} of flakeRef github:o/r#hello: 12 store paths, 48.2 MB, \
                 built, in 14 s"
            )
        );
        let source = Source::StorePath(facts.root.clone());
        let warm = Facts { source, paths: 1, bytes: 512, seconds: 0.0004, ..facts };
        let warm = Facts { origin: Origin::Present, ..warm };
        assert_eq!(
            mounted("nix", &warm),
            format!(
                "volume nix: mounted {path}: 1 store path, 512 bytes, was in the node's store, in \
                 0.4 ms"
            )
        );
    }

    #[test]
    fn all_volumes_of_a_pod_are_in_one_note() {
        let building = Progress {
            stage: Stage::Building,
            builds_done: 3,
            builds_expected: 12,
            current: "hello-2.12".to_owned(),
            ..Progress::default()
        };
        let queued = Progress { stage: Stage::QueuedBuild, ..Progress::default() };
        let volumes = [
            ("a".to_owned(), Some(building)),
            ("b".to_owned(), Some(queued)),
            ("c".to_owned(), None),
        ];
        assert_eq!(
            waiting(&volumes, Duration::from_secs(45)),
            "volume a: fetching and building: 3 of 12 derivations, now hello-2.12; volume b: waits \
             for its turn; volume c: preparing; 45 s so far"
        );
    }
}
