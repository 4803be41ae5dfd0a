//! What is fuzzed here: all that Nix, an sshd or a file of secrets says. See [`crate::fuzz`].

use std::time::Duration;

use futures::executor::block_on;
use tokio::io::AsyncReadExt as _;

use super::bounds::Memory;
use super::classify::{Asked, classify};
pub(crate) use super::daemon::fuzz as process_files;
pub(crate) use super::derivation::fuzz as derivation;
use super::evaluator::Tokens;
pub(crate) use super::exchange::fuzz as token_exchange;
use super::exit::Exit;
use super::internal_log::LogReader;
use super::redact::{Redactor, access_tokens, secrets_of_access_tokens, secrets_of_netrc};
use super::secret::{check_access_tokens, check_signing_key};
pub(crate) use super::settings::fuzz as settings;
use super::substituters::effective;
pub(crate) use super::substituters::fuzz as substituter;
use super::{
    Buildable, Capabilities, Limit, Limits, Lock, Progress, collect, conf, delete, greeting as ssh,
    locked_revision, output, process, text,
};
use crate::fuzz::{announced, refusal, text};
use crate::model::{Announcement, StorePath};

/// Of a redactor: a shorter one is no secret.
const MIN_SECRET: usize = 6;

/// Lines of secrets, an empty line, and the text.
fn secrets_and_text(data: &[u8]) -> (Vec<String>, &[u8]) {
    let end = data.windows(2).position(|two| two == b"\n\n");
    let (secrets, rest) = end.map_or((&[][..], data), |end| (&data[..end], &data[end + 2..]));
    let secrets = text(secrets);
    let plain = |secret: &str| secret.replace("\\n", "\n").replace("\\r", "\r");
    (secrets.lines().take(8).map(plain).collect(), rest)
}

/// Nothing that is shown has one of the secrets in it, however it was said.
fn hidden(secrets: &[String], shown: &str) {
    for secret in secrets {
        for form in [secret.clone(), text::clean(secret, usize::MAX)] {
            assert!(form.len() < MIN_SECRET || !shown.contains(&form), "{form:?} in {shown:?}");
        }
    }
}

pub(crate) fn redactor(data: &[u8]) {
    let (secrets, said) = secrets_and_text(data);
    let said = text(said);
    let redactor = Redactor::new(secrets.clone());
    let clean = redactor.clean(&said);
    for secret in secrets.iter().filter(|secret| secret.len() >= MIN_SECRET) {
        assert!(!clean.contains(secret.as_str()), "{secret:?} in {clean:?}");
    }
    assert_eq!(redactor.clean(&clean), clean);
    assert!(clean.len() <= 3 * said.len() + 3, "{} bytes of {}", clean.len(), said.len());
    for max in [0, 5, 80, usize::MAX] {
        let shown = redactor.shown(&said, max);
        assert!(shown.len() <= max);
        hidden(&secrets, &shown);
        plain(&shown);
    }
    cut_anywhere(&redactor, &secrets, &said);
    if said.len() < 2000 && is_covered(&secrets, &said) {
        assert!(clean.is_ascii(), "a part of a secret is left: {clean:?}");
    }
}

/// Whether all letters that are not ASCII belong to secrets, which may overlap.
fn is_covered(secrets: &[String], said: &str) -> bool {
    let ends_behind = |at: usize, secret: &str| {
        let first = (at + 1).saturating_sub(secret.len());
        (first..=at).any(|from| said.get(from..).is_some_and(|said| said.starts_with(secret)))
    };
    let mut others = said.char_indices().filter(|(_, c)| !c.is_ascii());
    others.all(|(at, _)| {
        secrets.iter().any(|secret| secret.len() >= MIN_SECRET && ends_behind(at, secret))
    })
}

/// A text with a secret at its end, cut off within the secret, shows nothing of it.
fn cut_anywhere(redactor: &Redactor, secrets: &[String], said: &str) {
    for secret in secrets.iter().filter(|secret| secret.len() >= MIN_SECRET) {
        for cut in (1..secret.len()).filter(|cut| secret.is_char_boundary(*cut)).take(64) {
            let whole = format!("{said}{}", &secret[..cut]);
            let kept = redactor.without_begun(&whole);
            assert!(kept.len() <= said.len() && said.starts_with(kept), "{kept:?}");
        }
    }
    let url = format!("{said}https://user:password");
    assert!(!redactor.without_begun(&url).ends_with("password"));
}

/// No terminal escapes.
fn plain(shown: &str) {
    assert!(!shown.contains(|c: char| c.is_control() && !matches!(c, '\n' | '\t')), "{shown:?}");
}

pub(crate) fn text_clean(data: &[u8]) {
    let said = text(data);
    for max in [0, 1, 7, 400, usize::MAX] {
        let clean = text::clean(&said, max);
        assert!(clean.len() <= max.min(said.len()));
        plain(&clean);
        assert_eq!(text::clean(&clean, max), clean);
    }
    let message = text::without_trace(&said);
    assert!(said.contains(message));
    assert!(said.contains(text::base_name(&said)));
    assert!(!text::base_name(&said).contains('/'));
}

/// Secrets as of [`secrets_and_text`], and what a program says on stderr, in two chunks.
pub(crate) fn internal_log(data: &[u8]) {
    let (secrets, said) = secrets_and_text(data);
    let (first, second) = said.split_at(said.len() / 2);
    let (mut log, mut progress) =
        (LogReader::new(Redactor::new(secrets.clone())), Progress::default());
    let mut lines = 0;
    block_on(process::read_lines(first.chain(second), |line| {
        assert!(line.len() <= process::MAX_LINE);
        lines += 1;
        log.line(line, &mut progress);
    }));
    assert!(lines <= said.split(|byte| *byte == b'\n').count());
    let messages: Vec<_> = log.errors().chain(log.warnings()).map(|m| m.text.clone()).collect();
    bounded(&messages, 64, 4096);
    let plain_lines: Vec<_> = log.plain().map(str::to_owned).collect();
    bounded(&plain_lines, 32, text::MAX_LINE_BYTES);
    let tail: Vec<_> = log.last_build().map(|name| log.tail(name)).unwrap_or_default();
    bounded(&tail, 10, text::MAX_LINE_BYTES);
    let built: Vec<_> = progress.log_tail.iter().cloned().collect();
    bounded(&built, 20, text::MAX_LINE_BYTES);
    let current = [progress.current.clone()];
    bounded(&current, 1, text::MAX_LINE_BYTES + 100);
    assert!(!progress.current.contains(char::is_control), "{:?}", progress.current);
    let errors = [classified(&log)];
    bounded(&errors, 1, 16 << 10);
    for shown in
        [messages, plain_lines, tail, built].iter().flatten().chain(&current).chain(&errors)
    {
        plain(shown);
        hidden(&secrets, shown);
    }
}

fn bounded(texts: &[String], most: usize, bytes: usize) {
    assert!(texts.len() <= most, "{} texts", texts.len());
    assert!(texts.iter().all(|text| text.len() <= bytes), "{texts:?}");
}

/// What becomes of it for who asked.
fn classified(log: &LogReader) -> String {
    let none = |setting| Limit::new(setting, Duration::from_secs(1));
    let limits = &Limits {
        evaluate: none("--a"),
        realise: none("--b"),
        build: none("--c"),
        silence: none("--d"),
        stall: none("--e"),
        upload: none("--f"),
    };
    let memory = &Memory { most: 1 << 30, rule: None };
    let evaluated = classify(&Asked::Evaluate { memory, limits }, Exit::Code(1), log);
    let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";
    let what = &Buildable::Path(StorePath::parse(path).expect("a path"));
    let choice = &super::substituters::Choice::default();
    let realised = classify(&Asked::Realise { what, limits, choice }, Exit::Code(1), log);
    format!("{evaluated}\n{realised}")
}

/// Files of secrets.
pub(crate) fn secrets(data: &[u8]) {
    let said = text(data);
    let tokens = secrets_of_access_tokens(&said);
    assert!(tokens.iter().all(|token| said.contains(token.as_str())));
    assert!(tokens.iter().map(String::len).sum::<usize>() <= said.len());
    if check_access_tokens(&said).is_ok() {
        let given = Tokens::of(&said).settings();
        let given = String::from_utf8(given).expect("a text");
        assert!(given.lines().count() <= 1, "more settings than one: {given:?}");
        assert_eq!(access_tokens(&given), access_tokens(&said));
        assert_eq!(secrets_of_access_tokens(&given), tokens);
    }
    let passwords = secrets_of_netrc(&said);
    assert!(passwords.iter().map(String::len).sum::<usize>() <= said.len());
    let _ = check_signing_key(&said);
    // Whatever a password is, it is found again.
    for password in passwords.iter().take(4) {
        let quoted = password.replace('\\', "\\\\").replace('"', "\\\"");
        let netrc = format!("machine h login password password \"{quoted}\"\n");
        assert_eq!(secrets_of_netrc(&netrc), [password.as_str()]);
    }
}

pub(crate) fn nix_conf(data: &[u8]) {
    let said = text(data);
    match conf::check(&said) {
        Ok(()) => {
            assert!(said.len() <= conf::MAX_CONF);
            // With it the tokens are given, which may be set nowhere else.
            let names = said
                .lines()
                .filter_map(|line| line.split(['=', ' ', '\t', '\r']).find(|w| !w.is_empty()));
            assert!(
                !names
                    .into_iter()
                    .any(|name| matches!(name, "access-tokens" | "include" | "!include"))
            );
        }
        Err(why) => assert!(why.len() <= 400 + said.len()),
    }
}

/// What the collector's commands print, and the note of what is being deleted.
pub(crate) fn gc_output(data: &[u8]) {
    let said = text(data);
    for line in said.lines() {
        if let Some(root) = collect::parse(line) {
            crate::fuzz::component(root.path.base_name());
            assert!(line.contains(root.path.base_name()) && line.contains(&root.name));
            let newer = format!("\"/r\" -> \"{}\"", root.path);
            let again = collect::parse(&newer).expect("a root");
            assert_eq!((again.name.as_str(), again.path), ("/r", root.path));
        }
        if let Some(path) = delete::refused(line) {
            let named = format!("error: Cannot delete path '{path}' since it is still alive.");
            assert_eq!(delete::refused(&named), Some(path));
        }
    }
}

/// What other commands print.
pub(crate) fn nix_output(data: &[u8]) {
    if let Ok(evaluated) = output::evaluated(data).inspect_err(refusal) {
        let paths = match &evaluated.buildable {
            Buildable::Path(path) => [Some(path), evaluated.path.as_ref()],
            Buildable::Output { derivation, .. } => [Some(derivation), evaluated.path.as_ref()],
        };
        paths.into_iter().flatten().for_each(|path| crate::fuzz::component(path.base_name()));
    }
    if let Ok(lock) = Lock::parse(data, Some("a")).inspect_err(refusal) {
        assert!(lock.reference.ends_with("#a") && lock.inputs.len() == 32);
        let _ = locked_revision(&lock.reference);
    }
    let said = text(data);
    if let Some(revision) = locked_revision(&said) {
        assert!(!revision.is_empty() && said.contains(revision));
    }
    let urls = effective(data).unwrap_or_default();
    assert!(urls.iter().map(String::len).sum::<usize>() <= said.len());
    assert!(urls.iter().all(|url| !url.contains(char::is_whitespace) && !url.is_empty()));
    if let Some(found) = Capabilities::parse(&said) {
        let line = format!("nix (Nix) {}.{}", found.version.0, found.version.1);
        assert_eq!(Capabilities::parse(&line).map(|again| again.version), Some(found.version));
    }
}

/// What an sshd says first, in two chunks.
pub(crate) fn greeting(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    match block_on(ssh::read(first.chain(second))) {
        Ok(line) => {
            assert!(line.starts_with("SSH-") && !line.contains('\n'));
            assert_eq!(block_on(ssh::read(data)).ok().as_ref(), Some(&line));
            announced(&Announcement::parse(&line));
        }
        Err(error) => refusal(&error),
    }
}
