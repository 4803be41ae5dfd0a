//! Reads what `nix --log-format internal-json` writes to stderr: one `@nix {…}` object a line,
//! and between them whatever other programs (git, ssh) print. Pure, and bounded in memory
//! whatever a builder prints; the numbers are those of Nix's `logging.hh`.

use std::collections::{HashMap, VecDeque};

use super::Progress;
use super::activity::{
    Activities, Activity, BUILD, BUILD_WAITING, BUILDS, COPY_PATH, COPY_PATHS, FETCH_TREE,
    FILE_TRANSFER, SUBSTITUTE,
};
use super::log_line::Line;
use super::process::MAX_LINE;
use super::redact::Redactor;
use super::text::{MAX_LINE_BYTES, base_name, first, push_bounded, without_trace};

const RESULT_LOG_LINE: u64 = 101;
const RESULT_PHASE: u64 = 104;
const RESULT_PROGRESS: u64 = 105;
const RESULT_EXPECTED: u64 = 106;

const MAX_MESSAGES: usize = 32;
const MAX_MESSAGE_BYTES: usize = 4096;
/// Of a message with its trace, before that is taken off.
pub(super) const MAX_TRACED_BYTES: usize = 4 * MAX_MESSAGE_BYTES;
const MAX_TAILS: usize = 32;
const TAIL_LINES: usize = 10;

/// One message of level error or warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Without terminal escapes and without a trace.
    pub(super) text: String,
    /// Where in the request's own text, counted from one.
    pub(super) position: Option<(u64, u64)>,
    /// A build had begun. Its builder may print messages of its own in Nix's form, and they can't be
    /// told from Nix's.
    pub(super) maybe_a_builders: bool,
}

#[derive(Default, Clone, Copy)]
struct Count {
    done: u64,
    expected: u64,
}

/// What a run has said so far.
#[derive(Default)]
pub(super) struct LogReader {
    activities: Activities,
    /// Sums of activities that have ended, by kind.
    ended: HashMap<u64, Count>,
    /// Bytes that the whole run expects, by kind of activity.
    expected_bytes: HashMap<u64, u64>,
    tails: VecDeque<(String, VecDeque<String>)>,
    errors: VecDeque<Message>,
    warnings: VecDeque<Message>,
    plain: VecDeque<String>,
    /// The derivation whose build started last.
    last_build: Option<String>,
    substituted: bool,
    /// A collector runs, and is waited for.
    waits_for_collector: bool,
    redactor: Redactor,
}

impl LogReader {
    /// A reader that shows none of the redactor's secrets.
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { redactor, ..Self::default() }
    }

    /// Takes one line of stderr and brings `progress` up to date.
    pub(super) fn line(&mut self, line: &[u8], progress: &mut Progress) {
        let text = String::from_utf8_lossy(line);
        let Some(json) = text.strip_prefix("@nix ") else {
            return self.plain_line(&text);
        };
        let Some(line) = Line::parse(json) else {
            return;
        };
        match line.action.as_str() {
            "msg" => self.message(&line),
            "start" => self.start(&line, progress),
            "stop" => self.stop(&line, progress),
            "result" => self.result(&line, progress),
            _ => {}
        }
    }

    /// Messages of level error, oldest first.
    pub(super) fn errors(&self) -> impl Iterator<Item = &Message> {
        self.errors.iter()
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = &Message> {
        self.warnings.iter()
    }

    /// The last lines that were not Nix's own, such as git's.
    pub(super) fn plain(&self) -> impl Iterator<Item = &str> {
        self.plain.iter().map(String::as_str)
    }

    /// The last lines of a derivation's build.
    pub(super) fn tail(&self, derivation: &str) -> Vec<String> {
        self.tails
            .iter()
            .find(|(name, _)| name == derivation)
            .map(|(_, lines)| lines.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Whether a derivation was built.
    pub(super) fn built(&self) -> bool {
        self.last_build.is_some()
    }

    pub(super) fn last_build(&self) -> Option<&str> {
        self.last_build.as_deref()
    }

    /// Whether a path was substituted.
    pub(super) fn substituted(&self) -> bool {
        self.substituted
    }

    pub(super) fn activities(&self) -> &Activities {
        &self.activities
    }

    /// Whether it waits for what has time limits of its own, or may take its time.
    pub(super) fn may_be_silent(&self) -> bool {
        let waits = |a: &Activity| matches!(a.kind, BUILD | BUILD_WAITING);
        self.waits_for_collector || self.activities.values().any(waits)
    }

    fn plain_line(&mut self, text: &str) {
        let text = self.redactor.shown_cut(text, text.len() >= MAX_LINE, MAX_LINE_BYTES);
        if !text.trim().is_empty() {
            push_bounded(&mut self.plain, text, MAX_MESSAGES);
        }
    }

    fn message(&mut self, line: &Line) {
        if !matches!(line.level, Some(0 | 1)) {
            return;
        }
        let said = line.raw_msg.as_ref().or(line.msg.as_ref()).map_or("", String::as_str);
        let said = self.redactor.shown_cut(said, line.is_cut, usize::MAX);
        let text = if line.raw_msg.is_some() { &said } else { without_trace(&said) };
        let text = first(text, MAX_MESSAGE_BYTES).trim();
        let text = text.trim_start_matches("error:").trim().to_owned();
        self.waits_for_collector |= text.contains("garbage collector lock");
        // What a daemon says of a connection that it closes, advice, and what a dry run would do.
        let noise = [
            "error (ignored)",
            "(use '--show-trace'",
            "Try 'nix",
            "this derivation will be",
            "this path will be",
            "these ",
            "/nix/store/",
        ];
        if text.is_empty() || noise.iter().any(|start| text.starts_with(start)) {
            return;
        }
        let at = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let position = at(line.row).zip(at(line.column));
        // A daemon's warnings come as plain errors.
        let is_error = line.level == Some(0) && !text.starts_with("warning:");
        let maybe_a_builders = self.built();
        let list = if is_error { &mut self.errors } else { &mut self.warnings };
        push_bounded(list, Message { text, position, maybe_a_builders }, MAX_MESSAGES);
    }

    fn start(&mut self, line: &Line, progress: &mut Progress) {
        let (Some(id), Some(kind)) = (line.id, line.kind) else {
            return;
        };
        let name = self.redactor.shown_line(base_name(line.string(0)), MAX_LINE_BYTES);
        match kind {
            BUILD => {
                progress.current = format!("building {name}");
                self.last_build = Some(name.clone());
            }
            SUBSTITUTE => {
                self.substituted = true;
                progress.current = format!("fetching {name}");
            }
            // A URL may carry a secret: it is not repeated.
            FILE_TRANSFER if !self.substituted => "downloading".clone_into(&mut progress.current),
            FETCH_TREE => "fetching a source".clone_into(&mut progress.current),
            0 if line.text.as_deref().is_some_and(|t| t.starts_with("evaluating")) => {
                "evaluating".clone_into(&mut progress.current);
            }
            _ => {}
        }
        self.activities.start(id, Activity { kind, name, ..Activity::default() }, line);
    }

    fn stop(&mut self, line: &Line, progress: &mut Progress) {
        let Some(activity) = line.id.and_then(|id| self.activities.stop(id)) else {
            return;
        };
        // Kinds come from the log: a hostile one must not fill the map.
        if is_counted(activity.kind) {
            let sum = self.ended.entry(activity.kind).or_default();
            sum.done = sum.done.saturating_add(activity.done);
            sum.expected = sum.expected.saturating_add(activity.expected);
        }
        self.count(progress);
    }

    fn result(&mut self, line: &Line, progress: &mut Progress) {
        let activity = line.id.and_then(|id| self.activities.get_mut(id));
        match (line.kind, activity) {
            (Some(RESULT_LOG_LINE), activity) => {
                let name = activity.map(|a| a.name.clone());
                let text = self.redactor.shown(line.string(0), MAX_LINE_BYTES);
                progress.push_log(&text);
                if let Some(name) = name {
                    self.log_line(name, text);
                }
            }
            (Some(RESULT_PHASE), Some(activity)) => {
                let phase = self.redactor.shown_line(line.string(0), 80);
                progress.current = format!("building {}: {phase}", activity.name);
            }
            (Some(RESULT_PROGRESS), Some(activity)) => {
                activity.done = line.number(0);
                activity.expected = line.number(1);
                self.count(progress);
            }
            (Some(RESULT_EXPECTED), _) if is_counted(line.number(0)) => {
                self.expected_bytes.insert(line.number(0), line.number(1));
                self.count(progress);
            }
            _ => {}
        }
    }

    fn log_line(&mut self, derivation: String, text: String) {
        if let Some((_, lines)) = self.tails.iter_mut().find(|(name, _)| *name == derivation) {
            return push_bounded(lines, text, TAIL_LINES);
        }
        push_bounded(&mut self.tails, (derivation, VecDeque::from([text])), MAX_TAILS);
    }

    fn count(&self, progress: &mut Progress) {
        let builds = self.sum(BUILDS);
        let fetches = self.sum(COPY_PATHS);
        // Copies from a store on disk or over ssh move no file; their NAR bytes are counted.
        let unit = if self.expected_bytes.get(&FILE_TRANSFER).unwrap_or(&0) > &0 {
            FILE_TRANSFER
        } else {
            COPY_PATH
        };
        progress.builds_done = builds.done;
        progress.builds_expected = builds.expected;
        progress.fetches_done = fetches.done;
        progress.fetches_expected = fetches.expected;
        progress.bytes_done = self.sum(unit).done;
        progress.bytes_expected = self.expected_bytes.get(&unit).copied().unwrap_or(0);
    }

    fn sum(&self, kind: u64) -> Count {
        let ended = self.ended.get(&kind).copied().unwrap_or_default();
        self.activities.values().filter(|a| a.kind == kind).fold(ended, |sum, a| Count {
            done: sum.done.saturating_add(a.done),
            expected: sum.expected.saturating_add(a.expected),
        })
    }
}

fn is_counted(kind: u64) -> bool {
    matches!(kind, BUILDS | COPY_PATHS | COPY_PATH | FILE_TRANSFER)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::nix::recorded;

    fn read(lines: &[String]) -> (LogReader, Progress) {
        let (mut reader, mut progress) = (LogReader::default(), Progress::default());
        for line in lines {
            reader.line(line.as_bytes(), &mut progress);
        }
        (reader, progress)
    }

    #[test]
    fn a_message_that_was_cut_keeps_its_start() {
        let line = |text: &str| {
            format!(
                r#"@nix {{"action":"msg","column":7,"file":"(string)","level":0,"line":1,"msg":"{text}"#
            )
        };
        let whole = r"é\u00fc\ud83d\ude00\n".repeat(4000);
        for cut in 5000..5040 {
            let (log, _) = read(&[line(&whole[..whole.floor_char_boundary(cut)])]);
            let message = log.errors().next().expect("a message");
            assert!(message.text.starts_with("éü😀\néü"), "{}", &message.text[..40]);
            assert!(message.text.len() > 1000 && message.position == Some((1, 7)));
        }
        let (log, _) = read(&[line(r"short\\"), line(r"short\u00f"), line("a \\\"b\\")]);
        let texts: Vec<_> = log.errors().map(|m| m.text.as_str()).collect();
        assert_eq!(texts, [r"short\", "short", "a \"b"]);
        let traced = r"error:\n       … while calling x\n  1| error\n\n  error: the cause";
        let (log, _) = read(&[line(traced)]);
        assert_eq!(log.errors().next().unwrap().text, "the cause");
        // Of anything else, a part is nothing.
        let (log, _) = read(&[r#"@nix {"action":"start","id":1,"text":"x"#.to_owned()]);
        assert_eq!(log.errors().count(), 0);
    }

    /// What is shown of `lines`, by a reader that knows `secret`.
    fn shown(secret: &str, lines: &[String]) -> String {
        let mut reader = LogReader::new(Redactor::new([secret.to_owned()]));
        let mut progress = Progress::default();
        for line in lines {
            reader.line(line.as_bytes(), &mut progress);
        }
        let messages = reader.errors().chain(reader.warnings()).map(|m| m.text.clone());
        let plain = reader.plain().map(str::to_owned);
        let built = reader.last_build().map(|name| reader.tail(name)).unwrap_or_default();
        let all: Vec<String> =
            messages.chain(plain).chain(built).chain(progress.log_tail).collect();
        format!("{}\n{}", all.join("\n"), progress.current)
    }

    fn json(line: &serde_json::Value) -> String {
        format!("@nix {line}")
    }

    #[test]
    fn an_escape_within_a_secret_does_not_show_it() {
        let said = "gh\u{1b}[1mp_s\u{7}ecret";
        let fields = serde_json::json!([said]);
        let lines = [
            json(&serde_json::json!({"action": "msg", "level": 0, "msg": said})),
            json(&serde_json::json!({"action": "msg", "level": 1, "raw_msg": said})),
            json(&serde_json::json!({"action": "start", "id": 1, "type": BUILD, "fields": fields})),
            json(
                &serde_json::json!({"action": "result", "id": 1, "type": RESULT_LOG_LINE, "fields": fields}),
            ),
            said.to_owned(),
        ];
        for n in 0..=lines.len() {
            let shown = shown("ghp_secret", &lines[..n]);
            assert!(!shown.contains("ghp_secret") && !shown.contains('\u{1b}'), "{shown}");
            assert!(n == 0 || shown.contains(crate::model::HIDDEN), "{n}: {shown}");
        }
    }

    /// A part of a secret is none that is known.
    #[test]
    fn no_part_of_a_secret_is_shown_where_a_text_is_cut() {
        const SECRET: &str = "\u{a7}\u{b6}\u{de}\u{d8}\u{df}\u{e6}";
        let of_it = |shown: &str| SECRET.chars().any(|c| shown.contains(c));
        for at in (0..40).map(|n| n * 2) {
            for max in [MAX_LINE_BYTES, MAX_MESSAGE_BYTES, MAX_TRACED_BYTES, MAX_LINE] {
                let Some(before) = max.checked_sub(at) else { continue };
                let text = format!("{}{SECRET} and more", "x".repeat(before));
                let message = json(&serde_json::json!({"action": "msg", "level": 0, "msg": text}));
                let raw = json(&serde_json::json!({"action": "msg", "level": 0, "raw_msg": text}));
                let log = json(
                    &serde_json::json!({"action": "result", "type": RESULT_LOG_LINE, "fields": [text]}),
                );
                // A reader of lines cuts them there.
                let cut = |line: &String| line[..line.floor_char_boundary(MAX_LINE)].to_owned();
                for line in [&message, &raw, &log, &text] {
                    let shown = shown(SECRET, &[cut(line)]);
                    assert!(!of_it(&shown), "{at} {max}: {shown}");
                }
            }
        }
    }

    /// What is left of a message that was too long ends anywhere, and its trace is taken off.
    #[test]
    fn no_secret_begins_at_the_end_of_what_is_left_of_a_long_message() {
        const SECRET: &str = "\u{a7}\u{b6}\u{de}\u{d8}\u{df}\u{e6}";
        let of_it = |shown: &str| SECRET.chars().any(|c| shown.contains(c));
        let escaped = "\u{a7}\u{b6}\u{1b}[1m\u{de}\u{d8}\u{df}\u{e6}";
        let more = "x".repeat(MAX_LINE);
        for at in 0..60 {
            let trace = "x".repeat(MAX_TRACED_BYTES - 60 - at);
            for (known, said) in [
                (SECRET, format!("it said {SECRET}{more}")),
                (SECRET, format!("it said {escaped}{more}")),
                ("another", format!("see https://user:{SECRET}{more}@host")),
                ("another", format!("see https://user:{escaped}{more}@host")),
            ] {
                let text = format!("error:\n\u{2026} while {trace}\nerror: {said}");
                let line = json(&serde_json::json!({"action": "msg", "level": 0, "msg": text}));
                let shown = shown(known, &[line[..line.floor_char_boundary(MAX_LINE)].to_owned()]);
                assert!(!of_it(&shown), "{at}: {shown}");
                assert!(shown.starts_with("it sa") || shown.starts_with("see h"), "{shown}");
            }
        }
    }

    #[test]
    fn what_a_builder_may_have_said_is_marked() {
        let message = r#"@nix {"action":"msg","level":0,"msg":"error: unable to download 'x'"}"#;
        let build =
            format!(r#"@nix {{"action":"start","id":1,"type":{BUILD},"fields":["x.drv"]}}"#);
        let (log, _) = read(&[message.to_owned(), build, message.to_owned()]);
        let marks: Vec<_> = log.errors().map(|m| m.maybe_a_builders).collect();
        assert_eq!(marks, [false, true]);
    }

    #[test]
    fn a_recorded_build_is_counted() {
        for case in recorded::cases().into_iter().filter(|c| c.name == "ok") {
            let (reader, progress) = read(&case.stderr);
            assert!(reader.built() && !reader.substituted(), "{}", case.version);
            assert_eq!(reader.errors().count(), 0);
            // 2.34 expects one build twice: expectations are a hint, never a promise.
            assert!((1..=progress.builds_expected).contains(&progress.builds_done));
            assert_eq!(progress.log_tail, ["one", "two"]);
            assert_eq!(progress.current, "building ok");
            assert_eq!(reader.tail("ok"), ["one", "two"]);
        }
    }

    #[test]
    fn bytes_come_from_transfers_or_else_from_copies() {
        let start = |id: u64, kind: u64| {
            format!(r#"@nix {{"action":"start","id":{id},"level":0,"text":"","type":{kind}}}"#)
        };
        let result = |id: u64, kind: u64, fields: &str| {
            format!(r#"@nix {{"action":"result","id":{id},"type":{kind},"fields":[{fields}]}}"#)
        };
        let mut lines = vec![
            start(1, 102),
            start(2, COPY_PATHS),
            start(3, SUBSTITUTE),
            start(4, FILE_TRANSFER),
            result(2, RESULT_PROGRESS, "1,3,0,0"),
            result(1, RESULT_EXPECTED, "101,500"),
            result(1, RESULT_EXPECTED, "100,900"),
            result(4, RESULT_PROGRESS, "120,200"),
        ];
        let (reader, progress) = read(&lines);
        assert!(reader.substituted());
        assert_eq!((progress.bytes_done, progress.bytes_expected), (120, 500));
        assert_eq!((progress.fetches_done, progress.fetches_expected), (1, 3));
        lines.push(r#"@nix {"action":"stop","id":4}"#.to_owned());
        assert_eq!(read(&lines).1.bytes_done, 120);
    }

    proptest! {
        #[test]
        fn no_line_panics(lines in prop::collection::vec(any::<Vec<u8>>(), 0..10)) {
            let (mut reader, mut progress) = (LogReader::default(), Progress::default());
            for line in lines {
                reader.line(&line, &mut progress);
                reader.line(&[b"@nix ".as_slice(), &line].concat(), &mut progress);
            }
        }

        #[test]
        fn no_event_panics_and_memory_stays_bounded(
            events in prop::collection::vec(
                (0..4usize, 0..6u64, 98..114u64, any::<(u64, u64)>(), ".{0,40}"), 0..120)
        ) {
            let (mut reader, mut progress) = (LogReader::default(), Progress::default());
            for (action, id, kind, (a, b), text) in events {
                let text = text.repeat(20);
                let action = ["start", "stop", "result", "msg"][action];
                let fields = if kind % 2 == 0 { serde_json::json!([text, a]) }
                    else { serde_json::json!([a, b, text]) };
                let line = serde_json::json!({ "action": action, "id": id, "type": kind,
                    "level": id, "msg": text, "fields": fields });
                reader.line(format!("@nix {line}").as_bytes(), &mut progress);
                reader.line(text.as_bytes(), &mut progress);
            }
            prop_assert!(reader.errors.len() <= MAX_MESSAGES);
            prop_assert!(reader.plain.len() <= MAX_MESSAGES);
            prop_assert!(reader.tails.len() <= MAX_TAILS);
            prop_assert!(reader.tails.iter().all(|(n, l)| n.len() <= MAX_LINE_BYTES
                && l.len() <= TAIL_LINES && l.iter().all(|l| l.len() <= MAX_LINE_BYTES)));
            prop_assert!(reader.ended.len() <= 4 && reader.expected_bytes.len() <= 4);
        }
    }
}
