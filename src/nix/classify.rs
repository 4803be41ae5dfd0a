//! From what a failed command said to a [`RealiseError`]: what the caller can do about it, a
//! short cause and a hint. Pure; tested with outputs recorded from real versions.

use std::time::Duration;

use crate::jail::SETUP_FAILED;

use super::bounds::Memory;
use super::exit::Exit;
use super::hints::{DAEMON_GONE, DISBELIEVED, HINTS, NO_BUILDER, NO_SPACE, NOBODY, SHORT};
use super::internal_log::{LogReader, Message};
use super::network;
use super::substituters::Choice;
use super::text::{MAX_LINE_BYTES, base_name, first};
use super::{Buildable, Limit, Limits, NixError, RealiseError, Step, TimedOut};

/// Bytes of a cause: it becomes a pod event, which Kubernetes cuts at 1 KiB.
const CAUSE_BYTES: usize = 400;

/// What a command was for.
pub(super) enum Asked<'a> {
    Evaluate { memory: &'a Memory, limits: &'a Limits },
    Realise { what: &'a Buildable, limits: &'a Limits, choice: &'a Choice },
}

impl Asked<'_> {
    /// Where it fails if nothing says otherwise.
    fn step(&self) -> Step {
        match self {
            Self::Evaluate { .. } => Step::Evaluate,
            Self::Realise { what: Buildable::Path(_), .. } => Step::Fetch,
            Self::Realise { what: Buildable::Output { .. }, .. } => Step::Build,
        }
    }

    /// All that `nix-store` before 2.34 says of a path that nobody has.
    fn path_failed<'l>(&self, log: &'l LogReader) -> Option<&'l Message> {
        let Self::Realise { what: Buildable::Path(path), .. } = self else {
            return None;
        };
        let words = format!("build of '{path}' failed");
        log.errors().find(|message| message.text.contains(&words))
    }

    fn limits(&self) -> &Limits {
        match self {
            Self::Evaluate { limits, .. } | Self::Realise { limits, .. } => limits,
        }
    }
}

pub(super) fn classify(asked: &Asked, exit: Exit, log: &LogReader) -> RealiseError {
    let Some(first) = log.errors().next() else {
        return silent(asked, exit, log);
    };
    let said = |words: &[&str]| log.errors().find(|m| contains_any(&m.text, words));
    // Not the first line but the one that says so.
    let full =
        |words: &&str| log.errors().flat_map(|m| m.text.lines()).find(|l| l.contains(*words));
    if let Some(line) = NO_SPACE.iter().find_map(full) {
        let step = if log.built() { Step::Build } else { asked.step() };
        return RealiseError::NoSpace { step, cause: cut(line) };
    }
    if let Some(message) = said(&DAEMON_GONE) {
        let cause = format!("the Nix daemon is not there: {}", cause(message));
        return RealiseError::Temporary { step: asked.step(), cause };
    }
    if let Some(message) = said(&NO_BUILDER) {
        return no_builder(asked, message, log);
    }
    if let Some(error) = log.errors().find_map(|m| build_failure(asked, m, log)) {
        return error;
    }
    if let Some(message) = said(&SHORT) {
        return RealiseError::Temporary { step: asked.step(), cause: cause(message) };
    }
    if let Some(message) = said(&NOBODY).or_else(|| asked.path_failed(log)) {
        return nobody(asked, message, log);
    }
    if let Asked::Evaluate { memory, .. } = asked
        && said(&["out of memory"]).is_some()
    {
        return memory.exceeded();
    }
    let jailed = matches!(asked, Asked::Evaluate { .. });
    network::network(first, log, jailed).unwrap_or_else(|| refused(asked, first))
}

/// Something is to be built and nobody may: it was to be fetched, or a cache has no builder.
fn no_builder(asked: &Asked, message: &Message, log: &LogReader) -> RealiseError {
    disbelieved(log).unwrap_or_else(|| {
        let cause = format!("nobody builds it: {}", cause(message));
        RealiseError::Temporary { step: asked.step(), cause }
    })
}

/// A substituter has it, and the node does not believe it.
fn disbelieved(log: &LogReader) -> Option<RealiseError> {
    let said = |(words, hint): &(&[&str], &'static str)| {
        let message = log.warnings().chain(log.errors()).find(|m| contains_any(&m.text, words))?;
        Some((message, *hint))
    };
    let (message, hint) = DISBELIEVED.iter().find_map(said)?;
    let cause = cause(message);
    let cause = cause.trim_start_matches("warning: ").trim_end_matches(';').to_owned();
    Some(RealiseError::Refused { step: Step::Fetch, cause, hint: Some(hint.to_owned()) })
}

/// A path that is wanted and that nobody offered. While a substituter is down, "nobody has it" is
/// not known.
fn nobody(asked: &Asked, message: &Message, log: &LogReader) -> RealiseError {
    let step = Step::Fetch;
    if let Asked::Realise { choice, what, .. } = asked
        && let Some(down) = choice.down.first()
    {
        let (Buildable::Path(path) | Buildable::Output { derivation: path, .. }) = what;
        let again = down.again_in.as_secs().max(1);
        let cause = format!(
            "no substituter that answers has {path}, and {} does not answer: {} (it is asked again \
             in {again} s)",
            down.url, down.reason
        );
        return RealiseError::Temporary { step, cause };
    }
    if let Some(error) = disbelieved(log) {
        return error;
    }
    let down = log
        .warnings()
        .chain(log.errors())
        .find(|m| contains_any(&m.text, &["unable to download", "unable to open", "disabling"]));
    if let Some(down) = down {
        let cause = format!("a substituter did not answer: {}", cause(down));
        return RealiseError::Temporary { step, cause };
    }
    match asked {
        Asked::Realise { what: Buildable::Path(path), choice, .. } => {
            let hint = match &choice.limited {
                Some(from) => format!("{from}: copy it there, or ask the cluster's operator"),
                None => {
                    "copy it to a substituter that this node uses, or check the path".to_owned()
                }
            };
            RealiseError::NotFound { path: path.clone(), hint: Some(hint) }
        }
        _ => RealiseError::Refused { step, cause: cause(message), hint: None },
    }
}

fn build_failure(asked: &Asked, message: &Message, log: &LogReader) -> Option<RealiseError> {
    let text = &message.text;
    // A failed dependency is reported first, by itself; the ones above it only repeat that.
    if contains_any(text, &["dependencies of derivation", "dependency failed"]) {
        return None;
    }
    let derivation = derivation(text, log)?;
    let unmet = ["is required to build", "platform mismatch", "missing system features"];
    if contains_any(text, &unmet) {
        return Some(RealiseError::Refused {
            step: Step::Build,
            cause: format!("{derivation}: {}", requirement(text)),
            hint: Some("no builder of this cluster has that system and these features".into()),
        });
    }
    let log_tail = log.tail(&derivation);
    if let Some((_, limit)) = text.split_once("timed out after ") {
        return Some(too_slow(asked.limits(), derivation, limit, log_tail).into());
    }
    let marks = [
        "builder for '",
        "Cannot build '",
        "hash mismatch in fixed-output",
        "build of '",
        "failed to produce output",
    ];
    contains_any(text, &marks).then(|| RealiseError::BuildFailed {
        cause: build_cause(text),
        hint: contains_any(text, &["signal 9"])
            .then(|| "something killed it; the node may be short of memory".to_owned()),
        log_tail,
        derivation,
    })
}

/// `2 seconds`, or `2 seconds of silence`.
fn too_slow(limits: &Limits, derivation: String, limit: &str, log_tail: Vec<String>) -> TimedOut {
    let seconds = limit.split(' ').next().and_then(|n| n.parse().ok()).map(Duration::from_secs);
    let is = |limit: Limit| seconds == Some(limit.most);
    // 2.34 does not say which limit it was.
    let silent = limit.contains("silence") || is(limits.silence) && !is(limits.build);
    let ours = if silent { limits.silence } else { limits.build };
    let most = seconds.unwrap_or(ours.most);
    let limit = Limit::new(ours.setting, most);
    let derivation = Some(derivation);
    TimedOut { step: Step::Build, derivation, silent, limit, rule: None, log_tail }
}

/// The name of the derivation that a message is about; the timeout of 2.34 names none.
fn derivation(text: &str, log: &LogReader) -> Option<String> {
    let named = text.split_once("/nix/store/").and_then(|(_, after)| after.split_once(".drv"));
    match named {
        Some((base, _)) => Some(first(base_name(base), MAX_LINE_BYTES).to_owned()),
        None if text.starts_with("timed out after") => log.last_build().map(str::to_owned),
        None => None,
    }
}

/// The interesting part of a build's failure, without the derivation's path, which is named apart.
fn build_cause(text: &str) -> String {
    if text.starts_with("hash mismatch") {
        let part =
            |key: &str| text.lines().find_map(|l| l.trim().strip_prefix(key)).unwrap_or("?").trim();
        return format!("hash mismatch: specified {}, got {}", part("specified:"), part("got:"));
    }
    let reason = text.lines().find_map(|l| l.trim().strip_prefix("Reason: "));
    let line = reason.unwrap_or_else(|| text.lines().next().unwrap_or_default());
    let line = match line.split_once(".drv' ") {
        Some((_, rest)) if contains_any(rest, &["failed with", "failed due to"]) => {
            &format!("builder {rest}")
        }
        Some((_, rest)) => rest,
        None => line,
    };
    let line = line.trim_end_matches(['.', ';']);
    // `failed to produce output path for output 'out' at '/nix/store/…'`
    let line = line.split(" at ").next().unwrap_or(line);
    cut(line)
}

/// `Required system: 'riscv64-linux'` of 2.34, or 2.8's single line.
fn requirement(text: &str) -> String {
    if let Some((wanted, _)) = text.split_once(" is required to build") {
        return cut(&format!("{wanted} is required"));
    }
    let required: Vec<&str> =
        text.lines().map(str::trim).filter(|l| l.starts_with("Required ")).collect();
    cut(&required.join(", "))
}

fn refused(asked: &Asked, message: &Message) -> RealiseError {
    let text = &message.text;
    let found = HINTS.iter().find(|(words, ..)| contains_any(text, words));
    let (step, hint) = found.map_or((asked.step(), ""), |(_, step, hint)| (*step, *hint));
    RealiseError::Refused {
        step,
        cause: cause(message),
        hint: (!hint.is_empty()).then(|| hint.to_owned()),
    }
}

/// Nix ended without a word: killed, or it could not start.
fn silent(asked: &Asked, exit: Exit, log: &LogReader) -> RealiseError {
    let detail = log.plain().last().map(cut).unwrap_or_default();
    if exit == Exit::Code(SETUP_FAILED.into()) {
        let what = format!("starting to {}", asked.step());
        return RealiseError::Store(NixError::Command { what, detail });
    }
    // Nix 2.8 dies of it without a message.
    if detail.contains("stack overflow") {
        let cause = detail.trim_start_matches("error: ").to_owned();
        return RealiseError::Refused { step: Step::Evaluate, cause, hint: None };
    }
    let step = asked.step();
    if matches!(exit, Exit::Signal(_)) && !exit.is_of_refused_call() {
        return RealiseError::Temporary { step, cause: format!("nix: {exit}") };
    }
    let detail = format!("{exit} {detail}").trim_end().to_owned();
    RealiseError::Store(NixError::Command { what: format!("nix ({step})"), detail })
}

pub(super) fn cause(message: &Message) -> String {
    let line = message.text.lines().next().unwrap_or_default();
    // From 2.20 on, around what went wrong with a download.
    let archive = line.strip_prefix("Failed to open archive (Source threw exception: error: ");
    let line = archive.and_then(|inner| inner.strip_suffix(')')).unwrap_or(line);
    // Good advice elsewhere; who reads this has neither.
    let line = line.trim_end_matches(" (add it using $NIX_PATH or -I)");
    match message.position {
        Some((line_number, column)) => {
            cut(&format!("{line}, at line {line_number} column {column}"))
        }
        None => cut(line),
    }
}

pub(super) fn cut(text: &str) -> String {
    let text = text.trim();
    match text.floor_char_boundary(CAUSE_BYTES) {
        end if end == text.len() => text.to_owned(),
        end => format!("{}…", &text[..end]),
    }
}

pub(super) fn contains_any(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StorePath;
    use crate::nix::{Progress, recorded};

    const LIMITS: Limits = Limits {
        evaluate: Limit::new("--eval-timeout", Duration::from_secs(9)),
        realise: Limit::new("--realise-timeout", Duration::ZERO),
        build: Limit::new("--build-timeout", Duration::from_secs(1)),
        silence: Limit::new("--max-silent-time", Duration::from_secs(2)),
        stall: Limit::new("--stall-timeout", Duration::ZERO),
        upload: Limit::new("--upload-timeout", Duration::ZERO),
    };

    /// The recorded commands evaluated and built in one.
    fn classify_as(case: &str, exit: Exit, log: &LogReader) -> RealiseError {
        let nobody = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody";
        match case {
            "nobody" | "D_nobody" | "substituter_down" | "D_refused" | "daemon_gone"
            | "daemon_gone_unix" => {
                let what = &Buildable::Path(StorePath::parse(nobody).unwrap());
                let choice = &Choice::default();
                classify(&Asked::Realise { what, limits: &LIMITS, choice }, exit, log)
            }
            _ => {
                let memory = &Memory { most: 4 << 30, rule: None };
                classify(&Asked::Evaluate { memory, limits: &LIMITS }, exit, log)
            }
        }
    }

    fn classified(case: &recorded::Case) -> RealiseError {
        let (mut log, mut progress) = (LogReader::default(), Progress::default());
        for line in &case.stderr {
            log.line(line.as_bytes(), &mut progress);
        }
        classify_as(&case.name, Exit::Code(case.code), &log)
    }

    /// What each recorded failure must become, for every version: kind and start of the message.
    const EXPECTED: &[(&str, &str, &str)] = &[
        ("build_failed", "build_failed", "build of bad failed: "),
        ("D_build_failed", "build_failed", "build of badd failed: "),
        ("dep_failed", "build_failed", "build of bad failed: "),
        (
            "no_output",
            "build_failed",
            "build of noout failed: failed to produce output path for output 'out'",
        ),
        (
            "hash_mismatch",
            "build_failed",
            "build of fo failed: hash mismatch: specified sha256-AAA",
        ),
        ("build_timeout", "timed_out", "build of slow took longer than 1s: raise --build-timeout"),
        ("undefined", "refused", "evaluate failed: undefined variable 'foo', at line 1 column 1"),
        ("throw", "refused", "evaluate failed: boo"),
        ("D_throw", "refused", "evaluate failed: boo"),
        ("deep", "refused", "evaluate failed: deep"),
        ("recursion", "refused", "evaluate failed: infinite recursion"),
        ("syntax", "refused", "evaluate failed: syntax error, "),
        ("abort", "refused", "evaluate failed: evaluation aborted"),
        ("assert", "refused", "evaluate failed: assertion "),
        ("number", "refused", "evaluate failed: expression does not evaluate to a derivation"),
        ("string", "refused", "evaluate failed: "),
        ("substring", "refused", "evaluate failed: "),
        ("missing_arg", "refused", "evaluate failed: cannot evaluate a function"),
        ("ifd", "refused", "evaluate failed: cannot build '/nix/store"),
        ("restricted", "refused", "evaluate failed: access to absolute path '/etc/passwd'"),
        ("restricted_url", "refused", "evaluate failed: access to URI 'https"),
        ("wrong_system", "refused", "build failed: ws: "),
        ("feature", "refused", "build failed: ft: "),
        (
            "nobody",
            "not_found",
            "fetch failed: /nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody is not in",
        ),
        (
            "D_nobody",
            "not_found",
            "fetch failed: /nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody is not in",
        ),
        ("substituter_down", "temporary", "fetch failed for now: a substituter did not answer"),
        ("flake_attr", "refused", "evaluate failed: flake 'path:"),
        ("flake_throw", "refused", "evaluate failed: flake says no"),
        ("flake_nopath", "refused", "fetch failed: "),
        ("flake_nogit", "refused", "fetch failed: "),
        ("flake_option", "refused", ""),
        ("flake_github", "temporary", "fetch failed for now: unable to download"),
        ("daemon_gone", "temporary", "fetch failed for now: the Nix daemon is not there"),
        ("daemon_gone_unix", "temporary", "fetch failed for now: the Nix daemon is not there"),
        ("D_refused", "temporary", "fetch failed for now: the Nix daemon is not there"),
        ("nospace", "no_space", "build failed: no space left on"),
        ("nospace2", "no_space", "evaluate failed: no space left on"),
    ];

    #[test]
    fn recorded_failures_are_classified() {
        for (name, kind, start) in EXPECTED {
            let cases: Vec<_> = recorded::cases().into_iter().filter(|c| c.name == *name).collect();
            assert_eq!(cases.len(), 2, "{name} is recorded for every version");
            for case in cases {
                let error = classified(&case);
                let text = error.to_string();
                let id = format!("{name} of {}: {error:?}", case.version);
                assert_eq!(error.kind(), *kind, "{id}");
                assert!(text.starts_with(start), "{id}: {text}");
                assert!(!text.contains('\u{1b}') && !text.contains("error:"), "{id}");
            }
        }
    }

    fn said(asked: &Asked, text: &str) -> String {
        let (mut log, mut progress) = (LogReader::default(), Progress::default());
        let line = serde_json::json!({ "action": "msg", "level": 0, "msg": text });
        log.line(format!("@nix {line}").as_bytes(), &mut progress);
        classify(asked, Exit::Code(1), &log).to_string()
    }

    #[test]
    fn what_the_node_is_short_of_is_for_now_and_the_step_is_the_commands() {
        let memory = &Memory { most: 4 << 30, rule: Some("default.x".to_owned()) };
        let evaluate = &Asked::Evaluate { memory, limits: &LIMITS };
        assert_eq!(
            said(evaluate, "error: out of memory"),
            "evaluate failed: it needs more than 4096 MiB of memory (the operator raises default.x \
             of the policy)"
        );
        let fork = "error: unable to fork: Resource temporarily unavailable";
        assert!(said(evaluate, fork).starts_with("evaluate failed for now: unable to fork"));
        let limited = "error: unable to download 'https://api.github.com/x': HTTP error 403\n\n\
                       response body:\n\n{\"message\":\"API rate limit exceeded for 192.0.2.1\"}";
        let said_of_it = said(evaluate, limited);
        assert!(said_of_it.starts_with("fetch failed for now: "), "{said_of_it}");
        assert!(said_of_it.contains("limits requests: name a revision"), "{said_of_it}");
        let refused = limited.replace("API rate limit exceeded", "Forbidden");
        assert!(said(evaluate, &refused).starts_with("fetch failed: "));
        let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x.drv";
        let (derivation, output) = (StorePath::parse(path).unwrap(), "out".to_owned());
        let what = &Buildable::Output { derivation, output };
        let realise = &Asked::Realise { what, limits: &LIMITS, choice: &Choice::default() };
        let text = "error: output '/nix/store/y' is not allowed to refer to '/nix/store/z'";
        assert!(said(realise, text).starts_with("build failed: output"));
    }

    #[test]
    fn every_recorded_failure_has_a_short_message() {
        for case in recorded::cases().into_iter().filter(|c| c.code != 0) {
            let text = classified(&case).to_string();
            println!("{} {}: {text}", case.version, case.name);
            assert!(text.len() < 1000, "{}: {text}", case.name);
        }
    }

    #[test]
    fn a_failed_build_has_the_last_ten_lines_of_its_own_log() {
        for case in recorded::cases() {
            if !matches!(case.name.as_str(), "build_failed" | "D_build_failed") {
                continue;
            }
            let RealiseError::BuildFailed { log_tail, cause, .. } = classified(&case) else {
                panic!("{} is a build failure", case.name)
            };
            assert_eq!(log_tail.len(), 10);
            assert_eq!((&*log_tail[0], &*log_tail[9]), ("line 3", "line 12"));
            assert_eq!(cause, "builder failed with exit code 3");
        }
    }

    #[test]
    fn a_silent_death_is_told_apart() {
        let log = LogReader::default();
        assert_eq!(classify_as("x", Exit::Signal(9), &log).kind(), "temporary");
        assert_eq!(classify_as("x", Exit::Code(1), &log).kind(), "store");
        let text = classify_as("x", Exit::Signal(31), &log).to_string();
        assert!(text.contains("--privileges all") && !text.contains("memory"), "{text}");
        let memory = &Memory { most: 4 << 30, rule: None };
        let evaluate = &Asked::Evaluate { memory, limits: &LIMITS };
        for program in ["git", "ssh"] {
            let text =
                format!("error: program '{program}' failed with signal 31 (Bad system call)");
            assert!(said(evaluate, &text).contains("--privileges all"), "{text}");
        }
    }
}
