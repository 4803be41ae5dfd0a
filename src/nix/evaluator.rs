//! How an expression or a flake is evaluated: as whom, with what in sight, by which settings.
//!
//! Nix's `restrict-eval` is no boundary: with it a flake's `path:` input still reads a directory. So
//! an evaluation runs in a jail: an unprivileged user in a mount namespace that has the store
//! (read-only), the daemon's socket, the programs and certificates that fetchers need, and a home of
//! the tenant's own. It reaches the store through the daemon, as an untrusted client.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::model::{Secret, Source, StorePath, Tenant};
use crate::read::{at_most, text_at_most};

use super::command::{CommandSpec, Config, client, pairs, push_options};
use super::conf::MAX_CONF;
use super::error::io_error;
use super::eval_jail::{HOME, NETRC, SOCKET, STATE, Seen, Sights, binds, guard};
use super::redact::{access_tokens, secrets_of_access_tokens};
use super::secret::check_access_tokens;
use super::{NixError, process};

/// Bytes of an access-tokens file.
pub(super) const MAX_TOKENS: usize = 32 << 10;

/// How free an expression (`nixExpr`) is. Flakes are always pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvalMode {
    /// May use the time, the system and environment, and fetch what it likes.
    Impure,
    /// As impure, but reads only the store and fetches only from the allowed URIs.
    Restricted,
    /// Reads and fetches only what is named by its hash; no `builtins.currentSystem`.
    Pure,
}

/// Settings of evaluations.
#[derive(Debug, Clone)]
pub struct Evaluator {
    pub mode: EvalMode,
    /// Lets an evaluation build what it imports. It counts as a build.
    pub import_from_derivation: bool,
    /// Entries of `NIX_PATH`.
    pub nix_path: Vec<String>,
    /// Prefixes of what a restricted expression may fetch.
    pub allowed_uris: Vec<String>,
    /// A file with `access-tokens` of Nix; read for each evaluation.
    pub access_tokens: Option<PathBuf>,
    /// Bytes of private memory of one process.
    pub memory: u64,
    /// User and group, of which the system need not know.
    pub uid: u32,
    /// Further directories that an evaluation may read, at the same path.
    pub visible: Vec<PathBuf>,
    /// Where the tenants' homes are.
    pub homes: PathBuf,
}

impl Evaluator {
    pub fn new(homes: PathBuf) -> Self {
        Self {
            mode: EvalMode::Restricted,
            import_from_derivation: false,
            nix_path: Vec::new(),
            allowed_uris: Vec::new(),
            access_tokens: None,
            memory: 4 << 30,
            uid: 30999,
            visible: Vec::new(),
            homes,
        }
    }

    /// The access tokens as they are now: an operator may change the file.
    pub(super) fn tokens(&self) -> Result<Tokens, NixError> {
        let Some(path) = &self.access_tokens else {
            return Ok(Tokens::default());
        };
        let text = text_at_most(path, MAX_TOKENS).map_err(|err| io_error("read", path, err))?;
        match check_access_tokens(&text) {
            Ok(()) => Ok(Tokens(text)),
            Err(why) => Err(io_error("use", path, io::Error::other(why))),
        }
    }

    /// Blocking. The tenant's home, made if need be: what one fetched is no other's to read.
    pub(super) fn home(&self, tenant: &Tenant) -> Result<PathBuf, NixError> {
        let digest = Sha256::digest(tenant.to_string());
        let home = self.homes.join(hex::encode(&digest[..12]));
        let make = |dir: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        make(&self.homes).map_err(|err| io_error("create", &self.homes, err))?;
        make(&home).map_err(|err| io_error("create", &home, err))?;
        chown(&home, Some(self.uid), Some(self.uid)).map_err(|err| io_error("own", &home, err))?;
        Ok(home)
    }
}

/// The operator's settings, and the tokens: for the evaluator's standard input. Nix reads it once, and no
/// expression can read it again.
pub(super) fn settings(config: &Config, tokens: &Tokens) -> Result<Vec<u8>, NixError> {
    let mut all = match &config.conf {
        Some(conf) => match at_most(conf, MAX_CONF) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(io_error("read", conf, err)),
        },
        None => Vec::new(),
    };
    if all.last().is_some_and(|last| *last != b'\n') {
        all.push(b'\n');
    }
    all.extend(tokens.settings());
    Ok(all)
}

/// The text of an access-tokens file.
#[derive(Clone, Default)]
pub(super) struct Tokens(String);

impl Tokens {
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// A request's come last: of two for a host they count.
    pub(super) fn add(&mut self, secret: Option<&Secret>) {
        if let Some(secret) = secret {
            let pairs =
                access_tokens(&self.0).into_iter().chain(access_tokens(secret.access_tokens()));
            self.0 = pairs.collect::<Vec<_>>().join(" ");
        }
    }

    /// Values that must not be shown.
    pub(super) fn secrets(&self) -> Vec<String> {
        secrets_of_access_tokens(&self.0)
    }

    /// As a setting.
    pub(super) fn settings(&self) -> Vec<u8> {
        let pairs = access_tokens(&self.0);
        if pairs.is_empty() {
            return Vec::new();
        }
        format!("access-tokens = {}\n", pairs.join(" ")).into_bytes()
    }
}

/// Defaults of every evaluation.
const SETTINGS: [(&str, &str); 6] = [
    ("warn-dirty", "false"),
    // A flake's own `nixConfig` is the tenant's.
    ("accept-flake-config", "false"),
    ("builders", ""),
    ("connect-timeout", "5"),
    ("stalled-download-timeout", "20"),
    ("log-lines", "0"),
];

/// What is asked of an evaluator.
pub(super) enum Task<'a> {
    /// What does a mutable reference name now?
    Lock(&'a str),
    /// Which derivation is it? Writes it to the store.
    Instantiate(&'a Source),
    /// Copies what was evaluated from the tenant's own store to the node's.
    Hand(&'a StorePath),
}

/// What one evaluation may take.
pub(super) struct Within {
    /// Bytes of settings on its standard input.
    pub(super) settings: usize,
    /// Bytes.
    pub(super) memory: u64,
    /// Whom alone it may ask for what it imports.
    pub(super) substituters: Option<String>,
}

/// The command of one evaluation.
pub(super) fn command(
    config: &Config,
    task: &Task,
    within: &Within,
    sights: &Sights,
) -> CommandSpec {
    let evaluator = &config.evaluator;
    let Sights { home, seen, netrc } = sights;
    // Nothing is built in a tenant's own store.
    let imports = evaluator.import_from_derivation && matches!(seen, Seen::Store);
    let mut args: Vec<OsString> = vec![
        "--extra-experimental-features".into(),
        "nix-command flakes".into(),
        "--log-format".into(),
        "internal-json".into(),
    ];
    push_options(&mut args, SETTINGS.into_iter());
    // What is to be fetched or built is looked for when it is realised. But what is imported is
    // realised here: without substituters it would be built from its first compiler on.
    let only_here = (!imports).then_some(("substitute", "false"));
    push_options(&mut args, only_here.into_iter());
    push_options(&mut args, pairs(&config.nix_options));
    let only = within.substituters.iter().map(|list| ("substituters", &**list));
    push_options(&mut args, only);
    let guarded = config.guard.is_some();
    let netrc =
        netrc.map(|file| if guarded { NETRC.to_owned() } else { file.display().to_string() });
    push_options(&mut args, netrc.iter().map(|file| ("netrc-file", &**file)));
    let import = if imports { "true" } else { "false" };
    push_options(&mut args, [("allow-import-from-derivation", import)].into_iter());
    match task {
        Task::Lock(reference) => {
            // How long a reference keeps its meaning is our setting, not Nix's.
            push_options(&mut args, [("tarball-ttl", "0")].into_iter());
            args.extend(
                ["flake", "metadata", "--json", "--no-write-lock-file", "--"].map(Into::into),
            );
            args.push(reference.into());
        }
        Task::Instantiate(source) => instantiate(&mut args, source, evaluator),
        Task::Hand(path) => {
            args.push("copy".into());
            args.extend(path.is_derivation().then(|| "--derivation".into()));
            args.extend(["--to".into(), format!("unix://{SOCKET}").into(), "--".into()]);
            args.push(path.to_string().into());
        }
    }
    // Only what hands something over has to do with the daemon then.
    let asks = matches!(seen, Seen::Store) || matches!(task, Task::Hand(_));
    let socket = config.daemon_socket.as_deref().filter(|_| asks);
    let guard = config.guard.clone().map(|binary| {
        let binds = binds(config, socket, sights);
        (binary, guard(config, (within.settings, within.memory), binds))
    });
    let reached = socket.filter(|_| matches!(seen, Seen::Store));
    let places = match guard {
        Some(_) => (Path::new(HOME), reached.map(|_| Path::new(SOCKET))),
        None => (*home, reached),
    };
    let program = process::find(&config.program, &config.search_path);
    let mut spec = client(config, places, program, args);
    if let Seen::Own { programs, .. } = seen {
        spec.env.push(("NIX_STATE_DIR".into(), STATE.into()));
        let dirs = programs.dirs.iter().cloned();
        let all = dirs.chain(std::env::split_paths(&config.search_path));
        spec.env.extend(std::env::join_paths(all).ok().map(|path| ("PATH".into(), path)));
    }
    // The last of a name counts.
    spec.env.push(("NIX_PATH".into(), evaluator.nix_path.join(":").into()));
    spec.env.push(("NIX_USER_CONF_FILES".into(), "/proc/self/fd/0".into()));
    CommandSpec { guard, ..spec }
}

fn instantiate(args: &mut Vec<OsString>, source: &Source, evaluator: &Evaluator) {
    let restricted = evaluator.mode == EvalMode::Restricted && matches!(source, Source::NixExpr(_));
    if restricted {
        let uris = evaluator.allowed_uris.join(" ");
        push_options(args, [("restrict-eval", "true"), ("allowed-uris", &uris)].into_iter());
    }
    args.extend(["build", "--dry-run", "--json"].map(Into::into));
    match source {
        Source::StorePath(path) => args.extend(["--".into(), path.to_string().into()]),
        Source::FlakeRef(text) => {
            args.extend(["--no-write-lock-file".into(), "--".into(), text.into()]);
        }
        // The argument of `--expr` is taken as it is, even when it starts with a dash.
        Source::NixExpr(text) => {
            if evaluator.mode != EvalMode::Pure {
                args.push("--impure".into());
            }
            args.extend(["--expr".into(), text.into()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(substituters: Option<&str>) -> Within {
        Within { settings: 0, memory: 1, substituters: substituters.map(str::to_owned) }
    }

    #[test]
    fn what_is_imported_may_be_substituted_and_else_nothing_is() {
        for import in [false, true] {
            let mut config = Config::new("/home");
            config.evaluator.import_from_derivation = import;
            let source = Source::NixExpr("x".into());
            let sights = Sights { home: Path::new("/h"), seen: Seen::Store, netrc: None };
            let args = command(&config, &Task::Instantiate(&source), &within(None), &sights).args;
            let has = |name: &str, value: &str| args.windows(2).any(|w| w == [name, value]);
            assert_eq!(has("substitute", "false"), !import);
            assert!(has("allow-import-from-derivation", if import { "true" } else { "false" }));
        }
    }

    #[test]
    fn whom_the_policy_lets_it_ask_counts_more_than_the_nodes_own_settings() {
        let mut config = Config::new("/home");
        config.nix_options.push(("substituters".to_owned(), "https://a https://b".to_owned()));
        let source = Source::NixExpr("x".into());
        let last = |only| {
            let sights = Sights { home: Path::new("/h"), seen: Seen::Store, netrc: None };
            let args = command(&config, &Task::Instantiate(&source), &within(only), &sights).args;
            args[args.iter().rposition(|arg| arg == "substituters").unwrap() + 1].clone()
        };
        assert_eq!(last(None), "https://a https://b");
        assert_eq!(last(Some("https://b")), "https://b");
        assert_eq!(last(Some("")), "");
    }

    #[test]
    fn tokens_are_given_however_the_file_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let mut evaluator = Evaluator::new("/h".into());
        evaluator.access_tokens = Some(file.clone());
        for text in [
            "github.com=ghp_x",
            "access-tokens = github.com=ghp_x # a=b",
            "access-tokens=github.com=ghp_x",
            "sandbox = a=b\nextra-access-tokens = github.com=ghp_x",
        ] {
            fs::write(&file, text).unwrap();
            let settings = String::from_utf8(evaluator.tokens().unwrap().settings()).unwrap();
            assert_eq!(settings, "access-tokens = github.com=ghp_x\n", "{text}");
            assert_eq!(evaluator.tokens().unwrap().secrets(), ["ghp_x"], "{text}");
        }
        let own = [("access-tokens".to_owned(), "b.c=ghp_y".to_owned())];
        let mut both = evaluator.tokens().unwrap();
        both.add(Secret::parse(own.into()).unwrap().as_ref());
        assert_eq!(both.settings(), b"access-tokens = github.com=ghp_x b.c=ghp_y\n");
        assert_eq!(both.secrets(), ["ghp_x", "ghp_y"]);
        fs::write(&file, "# nothing").unwrap();
        assert!(evaluator.tokens().unwrap().settings().is_empty());
    }
}
