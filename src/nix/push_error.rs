//! From what a failed upload said to a [`PushError`]: whether it is the cache's fault or the
//! closure's. Pure.

use std::path::Path;

use super::classify::{cause, contains_any, cut};
use super::exit::{BAD_CALL, Exit, REFUSES_NONE};
use super::hints::NO_SPACE;
use super::internal_log::{LogReader, Message};
use super::network::is_of_a_network;
use super::{Limit, NixError};
use crate::jail::SETUP_FAILED;
use crate::model::StorePath;

/// sysexits.h, EX_TEMPFAIL.
const TRY_LATER: i32 = 75;
/// Lines of a program's standard error that become its error.
const TAIL: usize = 3;

/// Ends of a conversation: with the cache, or with our own daemon.
const GONE: [&str; 10] = [
    "to socket at",
    "cannot open connection to remote store",
    "Nix daemon disconnected unexpectedly",
    "unexpected end-of-file",
    "Broken pipe",
    "failed to start SSH connection",
    "SSH connection to",
    "cannot connect to",
    "Resource temporarily unavailable",
    "Too many open files",
];
/// Of ssh or of our own relay, on lines of its own: nobody is let in, whatever the closure.
const NO_ENTRY: [&str; 4] =
    ["Permission denied (", "Host key verification failed", "ssh: ", "nix-csi relay: "];

const SIGNING: &str = "signing failed: ";
const FULL: &str = "no space left in the cache: ";
const AWAY: &str = "the cache does not answer: ";

/// How a push ends, for people: `none` is one that was not yet.
pub const ENDS: [&str; 9] =
    ["none", "ok", "unreachable", "key-refused", "host-key", "signing", "full", "refused", "other"];

/// Whether a line of ssh's, or of who is asked at its other end, says why there is no session.
pub(super) fn is_no_entry(line: &str) -> bool {
    contains_any(line, &NO_ENTRY)
}

/// Why closures could not be uploaded, by what the uploader does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It is the cache: unreachable, too slow, its disk full. Nothing else goes there now either.
    #[error("{cause}")]
    Temporary { cause: String },
    /// It is the closure: its signature is not accepted, it is not allowed.
    #[error("refused: {cause}")]
    Refused { cause: String },
    /// The path is not in this store any more: there is nothing to upload.
    #[error("{path} is not in the node's store any more")]
    Gone { path: StorePath },
}

impl PushError {
    /// A closed set of names for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Temporary { .. } => "temporary",
            Self::Refused { .. } => "refused",
            Self::Gone { .. } => "gone",
        }
    }

    /// What a person has to look at: one of [`ENDS`], by what ssh and Nix said.
    pub fn end(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Temporary { cause } if cause.starts_with(SIGNING) => "signing",
            Self::Temporary { cause } if cause.starts_with(FULL) => "full",
            Self::Temporary { cause } if cause.contains("Permission denied (") => "key-refused",
            Self::Temporary { cause } if cause.contains("Host key verification failed") => {
                "host-key"
            }
            Self::Temporary { cause } if cause.starts_with(AWAY) => "unreachable",
            Self::Gone { .. } | Self::Temporary { .. } => "other",
        }
    }

    pub(super) fn too_slow(limit: Limit) -> Self {
        let most = humantime::format_duration(limit.most);
        let cause = format!("it took longer than {most}: raise {}", limit.setting);
        Self::Temporary { cause }
    }

    /// Trouble on this side, before the cache was asked.
    pub(super) fn before(error: &NixError) -> Self {
        Self::Temporary { cause: error.to_string() }
    }
}

/// What a command was for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doing<'a> {
    Signing,
    Copying,
    /// To a program of the operator's.
    Handing(&'a Path),
}

pub(super) fn classify(doing: Doing, exit: Exit, log: &LogReader) -> PushError {
    match doing {
        Doing::Handing(program) => of_program(program, exit, log),
        // The key, or our own daemon: it is the same for every closure.
        Doing::Signing => {
            let cause = log.errors().next().map_or_else(|| silent(exit, log), cause);
            PushError::Temporary { cause: format!("{SIGNING}{cause}") }
        }
        Doing::Copying => of_copy(exit, log),
    }
}

fn of_copy(exit: Exit, log: &LogReader) -> PushError {
    let temporary = |cause: String| PushError::Temporary { cause };
    let Some(first) = log.errors().next() else {
        return temporary(silent(exit, log));
    };
    let full =
        |words: &&str| log.errors().flat_map(|m| m.text.lines()).find(|l| l.contains(*words));
    if let Some(line) = NO_SPACE.iter().find_map(full) {
        return temporary(format!("{FULL}{}", cut(line)));
    }
    if let Some(message) = log.errors().find(|m| m.text.contains(BAD_CALL)) {
        return temporary(format!("{}: {REFUSES_NONE}", cause(message)));
    }
    // ssh says why on a line of its own; Nix only that nobody is there.
    if let Some(line) = log.plain().filter(|line| is_no_entry(line)).last() {
        return temporary(format!("{AWAY}{}", cut(line)));
    }
    let is_away = |m: &&Message| {
        contains_any(&m.text, &GONE) || is_of_a_network(&m.text) || is_the_servers(&m.text)
    };
    if let Some(message) = log.errors().find(is_away) {
        return temporary(format!("{AWAY}{}", cause(message)));
    }
    // What is not known is taken for one closure's fault: the others then go on.
    PushError::Refused { cause: cause(first) }
}

/// `HTTP error 503`; others of the 4xx would be the same tomorrow.
fn is_the_servers(text: &str) -> bool {
    let code = text.split_once("HTTP error ").and_then(|(_, rest)| rest.get(..3));
    matches!(code.and_then(|code| code.parse::<u16>().ok()), Some(408 | 429 | 500..))
}

fn of_program(program: &Path, exit: Exit, log: &LogReader) -> PushError {
    let name = program.display();
    let cause = format!("{name}: {}", silent(exit, log));
    let later = match exit {
        Exit::Signal(_) => true,
        Exit::Code(code) => code == TRY_LATER || code == i32::from(SETUP_FAILED),
    };
    if later || exit.is_of_refused_call() {
        PushError::Temporary { cause }
    } else {
        PushError::Refused { cause }
    }
}

/// Of something that has no messages of Nix's form.
fn silent(exit: Exit, log: &LogReader) -> String {
    let lines: Vec<_> = log.plain().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("; ");
    if tail.is_empty() { exit.to_string() } else { cut(&format!("{exit}: {tail}")) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::nix::Progress;

    fn log(lines: &[&str]) -> LogReader {
        let mut log = LogReader::default();
        for line in lines {
            let json = |level: u8, text: &str| {
                let text = serde_json::to_string(text).unwrap();
                format!("@nix {{\"action\":\"msg\",\"level\":{level},\"msg\":{text}}}")
            };
            let line = line.strip_prefix("E ").map_or((*line).to_owned(), |text| json(0, text));
            log.line(line.as_bytes(), &mut Progress::default());
        }
        log
    }

    fn copied(lines: &[&str]) -> PushError {
        classify(Doing::Copying, Exit::Code(1), &log(lines))
    }

    /// As 2.8 and 2.34 say it.
    #[test]
    fn what_is_the_caches_is_temporary() {
        for (lines, cause) in [
            (
                vec!["E writing to file: No space left on device"],
                "no space left in the cache: writing to file: No space left on device",
            ),
            (
                vec![
                    "E unable to download 'http://c/nix-cache-info': Couldn't connect to server (7)",
                ],
                "the cache does not answer: unable to download 'http://c/nix-cache-info': Couldn't \
                 connect to server (7)",
            ),
            (
                vec!["E unable to upload 'http://c/nar/x': HTTP error 503"],
                "the cache does not answer: unable to upload 'http://c/nar/x': HTTP error 503",
            ),
            (
                vec![
                    "ssh: connect to host c port 22: Connection refused",
                    "E cannot open connection to remote store 'ssh-ng://c': error: unexpected \
                     end-of-file",
                ],
                "the cache does not answer: ssh: connect to host c port 22: Connection refused",
            ),
            (
                vec![
                    "nix@c: Permission denied (publickey).",
                    "E cannot open connection to remote store 'ssh-ng://c': error: unexpected \
                     end-of-file",
                ],
                "the cache does not answer: nix@c: Permission denied (publickey).",
            ),
            (
                vec!["E cannot connect to socket at '/run/s': Connection refused"],
                "the cache does not answer: cannot connect to socket at '/run/s': Connection refused",
            ),
            (vec![], "exit code 1"),
        ] {
            assert_eq!(copied(&lines), PushError::Temporary { cause: cause.to_owned() });
        }
        let killed = classify(Doing::Copying, Exit::Signal(9), &log(&[]));
        assert!(killed.to_string().contains("killed"), "{killed}");
    }

    #[test]
    fn a_key_that_is_refused_is_told_from_a_cache_that_is_down() {
        for (lines, end) in [
            (
                vec!["ssh: connect to host c port 22: Connection refused", "E cannot connect to"],
                "unreachable",
            ),
            (vec!["E cannot open connection to remote store 'ssh-ng://c'"], "unreachable"),
            (
                vec!["nix@c: Permission denied (publickey).", "E cannot connect to 'c'"],
                "key-refused",
            ),
            (vec!["Host key verification failed.", "E cannot connect to 'c'"], "host-key"),
            (vec!["E writing to file: No space left on device"], "full"),
            (vec!["E cannot add path 'x' because it lacks a valid signature"], "refused"),
            (vec![], "other"),
        ] {
            let found = copied(&lines).end();
            assert_eq!(found, end, "{lines:?}");
            assert!(ENDS.contains(&found));
        }
        let signing = classify(Doing::Signing, Exit::Code(1), &log(&["E opening file '/k'"]));
        assert_eq!(signing.end(), "signing");
    }

    /// It is no closure's fault.
    #[test]
    fn a_refused_call_names_the_way_out() {
        let of_git = copied(&["E program 'git' failed due to signal 31 (Bad system call)"]);
        let program = Doing::Handing(Path::new("/bin/up"));
        let itself =
            [Exit::Signal(31), Exit::Code(159)].map(|end| classify(program, end, &log(&[])));
        for error in itself.into_iter().chain([of_git]) {
            let text = error.to_string();
            assert!(text.contains("system call") && text.contains("--privileges all"), "{text}");
            assert!(!text.contains("memory") && error.kind() == "temporary", "{error:?}");
        }
    }

    #[test]
    fn what_is_the_closures_is_refused() {
        for text in [
            "cannot add path '/nix/store/x' because it lacks a valid signature",
            "cannot add path '/nix/store/x' because it lacks a signature by a trusted key",
            "unable to upload 'http://c/nar/x': HTTP error 403",
            "creating directory '/c/x': Read-only file system",
        ] {
            let error = copied(&[&format!("E {text}")]);
            assert_eq!(error, PushError::Refused { cause: text.to_owned() });
        }
    }

    /// A key that is not there concerns all of them.
    #[test]
    fn a_key_is_not_one_closures_fault() {
        let error =
            classify(Doing::Signing, Exit::Code(1), &log(&["E opening file '/k': No such file"]));
        assert_eq!(error.to_string(), "signing failed: opening file '/k': No such file");
        assert_eq!(error.kind(), "temporary");
    }

    #[test]
    fn a_program_says_by_its_code_whose_fault_it_is() {
        let said = log(&["one", "two", "three", "four"]);
        let ended = |code| classify(Doing::Handing(Path::new("/bin/up")), code, &said);
        assert_eq!(
            ended(Exit::Code(1)).to_string(),
            "refused: /bin/up: exit code 1: two; three; four"
        );
        assert_eq!(ended(Exit::Code(75)).kind(), "temporary");
        assert_eq!(ended(Exit::Signal(9)).kind(), "temporary");
    }

    #[test]
    fn a_limit_names_its_setting() {
        let error = PushError::too_slow(Limit::new("--upload-timeout", Duration::from_secs(60)));
        assert_eq!(error.to_string(), "it took longer than 1m: raise --upload-timeout");
    }
}
