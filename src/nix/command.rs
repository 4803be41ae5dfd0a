//! The command lines and environments of Nix's programs. Pure: argument vectors, no shell, and
//! nothing of a request's text can become an option.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::model::Source;

use super::Limits;

/// How to reach Nix and its store.
#[derive(Debug, Clone)]
pub struct Config {
    /// `nix`, by path or as a name on `search_path`; its siblings (`nix-store`) are found beside it.
    pub program: PathBuf,
    /// The store's directory as this process sees it; its logical name is always `/nix/store`.
    pub store_dir: PathBuf,
    pub state_dir: PathBuf,
    /// The daemon to ask; `None` works on the store directly.
    pub daemon_socket: Option<PathBuf>,
    /// Nix's caches and user settings; also where relative references start, so it has no
    /// `flake.nix` above it.
    pub home: PathBuf,
    /// `PATH` of the children: git, ssh, tar.
    pub search_path: OsString,
    /// Further variables, such as `NIX_SSL_CERT_FILE` or a proxy.
    pub environment: Vec<(OsString, OsString)>,
    /// Settings, given last so that they win over the defaults here.
    pub nix_options: Vec<(String, String)>,
    pub limits: Limits,
    /// The name of the setting behind `limits.timeout`, for the error that tells to raise it.
    pub timeout_setting: &'static str,
}

impl Config {
    /// The usual places, and `home` for caches.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self {
            program: "nix".into(),
            store_dir: "/nix/store".into(),
            state_dir: "/nix/var/nix".into(),
            daemon_socket: None,
            home: home.into(),
            search_path: "/usr/local/bin:/usr/bin:/bin".into(),
            environment: Vec::new(),
            nix_options: Vec::new(),
            limits: Limits { timeout: None },
            timeout_setting: "--build-timeout",
        }
    }
}

/// A program, its arguments and its whole environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub directory: PathBuf,
}

impl CommandSpec {
    /// A process in a group of its own, without input and without our environment.
    pub fn command(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(&self.directory)
            .stdin(std::process::Stdio::null())
            .process_group(0);
        command
    }
}

/// Defaults of every command that may evaluate or build.
const SETTINGS: [(&str, &str); 6] = [
    ("allow-import-from-derivation", "false"),
    // Without this a build runs unsandboxed where the kernel refuses a sandbox, without a word.
    ("sandbox-fallback", "false"),
    ("warn-dirty", "false"),
    // A flake's own `nixConfig` is the tenant's.
    ("accept-flake-config", "false"),
    ("builders", ""),
    // The log's lines come one by one; a failure need not repeat them, however long they are.
    ("log-lines", "0"),
];

/// `nix build` of `source` with a root at `out_link`.
pub(super) fn build(config: &Config, source: &Source, out_link: &Path) -> CommandSpec {
    let mut args = vec![
        "--extra-experimental-features".into(),
        "nix-command flakes".into(),
        "--log-format".into(),
        "internal-json".into(),
    ];
    let restrict = matches!(source, Source::NixExpr(_)).then_some(("restrict-eval", "true"));
    let own = SETTINGS.into_iter().chain(restrict);
    push_options(&mut args, own);
    push_options(&mut args, pairs(&config.nix_options));
    args.extend(["build", "--json", "--out-link"].map(OsString::from));
    args.push(out_link.into());
    match source {
        Source::StorePath(path) => args.extend(["--".into(), path.to_string().into()]),
        Source::FlakeRef(text) => {
            args.extend(["--no-write-lock-file".into(), "--".into(), text.into()]);
        }
        // The argument of `--expr` is taken as it is, even when it starts with a dash.
        Source::NixExpr(text) => args.extend(["--impure".into(), "--expr".into(), text.into()]),
    }
    spec(config, config.program.clone(), args)
}

/// One of Nix's other programs, such as `nix-store`, on the same store.
pub(super) fn sibling(config: &Config, name: &str, args: &[&OsStr]) -> CommandSpec {
    let program = config.program.with_file_name(name);
    spec(config, program, args.iter().map(Into::into).collect())
}

pub(super) fn spec(config: &Config, program: PathBuf, args: Vec<OsString>) -> CommandSpec {
    let mut env = base_env(&config.home, &config.search_path);
    env.push(("NIX_STATE_DIR".into(), config.state_dir.clone().into()));
    match &config.daemon_socket {
        Some(socket) => {
            let mut remote = OsString::from("unix://");
            remote.push(socket);
            env.push(("NIX_REMOTE".into(), remote));
        }
        None => env.push(("NIX_REMOTE".into(), "local".into())),
    }
    env.extend(config.environment.iter().cloned());
    CommandSpec { program, args, env, directory: config.home.clone() }
}

/// What every Nix process gets; nothing else of ours, so no token and no user's settings.
pub(super) fn base_env(home: &Path, search_path: &OsStr) -> Vec<(OsString, OsString)> {
    vec![
        ("PATH".into(), search_path.into()),
        ("HOME".into(), home.into()),
        ("LC_ALL".into(), "C".into()),
        ("NIX_PATH".into(), OsString::new()),
        // git would ask on a terminal for a user name.
        ("GIT_TERMINAL_PROMPT".into(), "0".into()),
    ]
}

pub(super) fn pairs(options: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    options.iter().map(|(k, v)| (k.as_str(), v.as_str()))
}

pub(super) fn push_options<'a>(
    args: &mut Vec<OsString>,
    options: impl Iterator<Item = (&'a str, &'a str)>,
) {
    for (name, value) in options {
        args.extend(["--option", name, value].map(OsString::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StorePath;

    fn args(source: &Source) -> Vec<String> {
        let mut config = Config::new("/home");
        config.nix_options = vec![("builders".into(), "@/m".into())];
        build(&config, source, Path::new("/r/out"))
            .args
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_requests_text_never_becomes_an_option() {
        let flake = args(&Source::FlakeRef("--help".into()));
        assert_eq!(flake[flake.len() - 2..], ["--", "--help"]);
        let expr = args(&Source::NixExpr("--help".into()));
        assert_eq!(expr[expr.len() - 2..], ["--expr", "--help"]);
        assert!(expr.windows(2).any(|w| w == ["restrict-eval", "true"]));
        assert!(!flake.contains(&"restrict-eval".to_owned()));
        let text = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";
        let path = args(&Source::StorePath(StorePath::parse(text).unwrap()));
        assert_eq!(path[path.len() - 2..], ["--", text]);
    }

    #[test]
    fn configured_settings_come_after_the_defaults() {
        let args = args(&Source::FlakeRef("x".into()));
        let last = args.iter().rposition(|a| a == "builders").unwrap();
        assert_eq!(args[last + 1], "@/m");
    }

    #[test]
    fn the_environment_is_only_what_is_named() {
        let mut config = Config::new("/home");
        config.daemon_socket = Some("/run/s".into());
        config.environment = vec![("NIX_SSL_CERT_FILE".into(), "/c".into())];
        let spec = sibling(&config, "nix-store", &[]);
        assert_eq!(spec.program, Path::new("nix-store"));
        let env: Vec<_> = spec.env.iter().map(|(k, _)| k.to_str().unwrap()).collect();
        let expected = [
            "PATH",
            "HOME",
            "LC_ALL",
            "NIX_PATH",
            "GIT_TERMINAL_PROMPT",
            "NIX_STATE_DIR",
            "NIX_REMOTE",
            "NIX_SSL_CERT_FILE",
        ];
        assert_eq!(env, expected);
        assert!(spec.env.contains(&("NIX_REMOTE".into(), "unix:///run/s".into())));
    }
}
