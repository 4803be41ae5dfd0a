//! The command lines and environments of Nix's programs. Pure: argument vectors, no shell, and
//! nothing of a request's text can become an option.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::jail::Guard;
use crate::jail::capabilities::{self, CapabilitySet};
use crate::trace;

use super::ssh;
use super::{Buildable, Elsewhere, Evaluator, Limit, Limits, ProbeLimits};

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
    /// Where sessions over ssh ask for leave; `None`: they have it.
    pub desk: Option<PathBuf>,
    /// Where files of requests' secrets are for as long as they are needed; in memory.
    pub secrets: PathBuf,
    /// The operator's program for pods' service-account tokens.
    pub token_exchange: Option<PathBuf>,
    /// Nix's caches and user settings; also where relative references start, so it has no
    /// `flake.nix` above it.
    pub home: PathBuf,
    /// `PATH` of the children: git, ssh, tar.
    pub search_path: OsString,
    /// Further variables, such as `NIX_SSL_CERT_FILE` or a proxy.
    pub environment: Vec<(OsString, OsString)>,
    /// The operator's nix.conf, of ours to read and replaced as a whole; may not be there.
    pub conf: Option<PathBuf>,
    /// Settings, given last so that they win over the defaults here.
    pub nix_options: Vec<(String, String)>,
    pub limits: Limits,
    /// Our own binary, which guards Nix's processes: they end with us. `None` runs them unguarded, and
    /// evaluations as this process's user: for tests on a store of their own.
    pub guard: Option<PathBuf>,
    /// Guarded programs keep no capability that they have no use for, and those that read what tenants wrote
    /// are refused system calls. Without it they have what we have.
    pub least_privilege: bool,
    pub evaluator: Evaluator,
    pub probe: ProbeLimits,
    /// The daemon at the socket is not ours.
    pub daemon_lent: bool,
    /// Whom our own daemon trusts; to be trusted by a daemon that runs as root is to be root.
    pub trusted_users: String,
    /// It evaluates and builds, so that builds must have their sandbox.
    pub builds: bool,
    /// Who builds; `None`: we do.
    pub elsewhere: Option<Elsewhere>,
    /// The URL of the cluster's cache, if there is one.
    pub cache: Option<String>,
}

impl Config {
    /// The usual places, and `home` for caches.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let home = home.into();
        let hour = Duration::from_secs(3600);
        Self {
            program: "nix".into(),
            store_dir: "/nix/store".into(),
            state_dir: "/nix/var/nix".into(),
            daemon_socket: None,
            desk: None,
            evaluator: Evaluator::new(home.join("tenants")),
            secrets: home.join("secrets"),
            token_exchange: None,
            home,
            search_path: "/usr/local/bin:/usr/bin:/bin".into(),
            environment: Vec::new(),
            conf: None,
            nix_options: Vec::new(),
            limits: Limits {
                evaluate: Limit::new("--eval-timeout", hour),
                realise: Limit::new("--realise-timeout", 2 * hour),
                build: Limit::new("--build-timeout", Duration::ZERO),
                silence: Limit::new("--max-silent-time", hour),
                stall: Limit::new("--stall-timeout", Duration::from_secs(60)),
                upload: Limit::new("--upload-timeout", hour),
            },
            guard: None,
            least_privilege: true,
            probe: ProbeLimits::default(),
            daemon_lent: false,
            trusted_users: "root".to_owned(),
            builds: true,
            elsewhere: None,
            cache: None,
        }
    }

    /// What a guarded program keeps, if that is less than all.
    pub(super) fn keeps(&self, needed: CapabilitySet) -> Option<CapabilitySet> {
        self.least_privilege.then_some(needed)
    }
}

/// A program, its arguments and its whole environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    pub program: PathBuf,
    pub args: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    pub directory: PathBuf,
    /// Our binary, and what it does for the program.
    pub guard: Option<(PathBuf, Guard)>,
}

impl CommandSpec {
    /// With the trace that it is part of: for what the driver runs in its own name, not for what reads what
    /// tenants wrote.
    pub(super) fn traced(mut self) -> Self {
        let of = trace::environment();
        self.env.extend(of.map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// A process in a group of its own, without our environment. A guarded one lives as long as its
    /// standard input is held open; another has no input.
    pub fn command(&self) -> tokio::process::Command {
        let (program, args) = match &self.guard {
            Some((binary, guard)) => (binary, guard.arguments(&self.program, &self.args)),
            None => (&self.program, self.args.clone()),
        };
        let mut command = tokio::process::Command::new(program);
        if self.guard.is_some() {
            command.arg0("nix-csi");
        }
        let input = if self.guard.is_some() { Stdio::piped() } else { Stdio::null() };
        command
            .args(args)
            .env_clear()
            .envs(self.env.iter().map(|(k, v)| (k, v)))
            .current_dir(&self.directory)
            .stdin(input)
            .process_group(0);
        command
    }
}

/// Defaults of every command that may fetch or build.
pub(super) const SETTINGS: [(&str, &str); 9] = [
    // Without this a build runs unsandboxed where the kernel refuses a sandbox, without a word.
    ("sandbox-fallback", "false"),
    ("builders", ""),
    // A cache that fails half-way is no reason to fail what can be built.
    ("fallback", "true"),
    // Seconds. Nix waits for minutes for a host that does not answer.
    ("connect-timeout", "5"),
    ("stalled-download-timeout", "20"),
    // The kubelet calls again, and what is fetched stays.
    ("download-attempts", "3"),
    // A path that was not in a cache may be pushed by the time of the kubelet's next call.
    ("narinfo-cache-negative-ttl", "5"),
    // The log's lines come one by one; a failure need not repeat them, however long they are.
    ("log-lines", "0"),
    ("warn-dirty", "false"),
];

/// Realises `what` with a root at `out_link`, asking only `substituters` if they are given.
pub(super) fn realise(
    config: &Config,
    what: &Buildable,
    out_link: &Path,
    substituters: Option<&str>,
    netrc: Option<&Path>,
) -> CommandSpec {
    let mut args = Vec::new();
    push_options(&mut args, substituters.map(|list| ("substituters", list)).into_iter());
    if let Some(netrc) = netrc {
        args.extend(["--option".into(), "netrc-file".into(), netrc.into()]);
    }
    args.extend(["--realise".into(), "--add-root".into(), out_link.into(), installable(what)]);
    logged(config, config.program.with_file_name("nix-store"), args.into_iter())
}

/// Nothing may be built by this command.
pub(super) fn fetch_only(spec: &mut CommandSpec) {
    let mut options = Vec::new();
    push_options(&mut options, [("max-jobs", "0")].into_iter());
    // Before what is to be done: the last of a name wins.
    let at = spec.args.iter().position(|arg| arg == "--realise").unwrap_or(spec.args.len());
    spec.args.splice(at..at, options);
}

/// As `nix-store` takes it.
pub(super) fn installable(what: &Buildable) -> OsString {
    match what {
        Buildable::Path(path) => path.to_string().into(),
        Buildable::Output { derivation, output } => format!("{derivation}!{output}").into(),
    }
}

/// A command that may fetch or build, with our settings and a log that is read.
pub(super) fn logged(
    config: &Config,
    program: PathBuf,
    rest: impl Iterator<Item = OsString>,
) -> CommandSpec {
    let mut args: Vec<OsString> = vec!["--log-format".into(), "internal-json".into()];
    push_options(&mut args, SETTINGS.into_iter());
    let seconds = |limit: Limit| limit.most.as_secs().to_string();
    let (build, silence) = (seconds(config.limits.build), seconds(config.limits.silence));
    push_options(&mut args, [("timeout", &*build), ("max-silent-time", &*silence)].into_iter());
    push_options(&mut args, pairs(&config.nix_options));
    args.extend(rest);
    spec(config, program, args)
}

/// With our guard, if there is one: the program and all that it starts end with us.
pub(super) fn guarded(config: &Config, mut spec: CommandSpec) -> CommandSpec {
    spec.guard = config.guard.clone().map(|binary| (binary, guard_of(config, &spec)));
    spec
}

/// Who asks a daemon needs no privileges; another does what a daemon would.
fn guard_of(config: &Config, spec: &CommandSpec) -> Guard {
    let asks = spec.env.iter().any(|(name, value)| name == "NIX_REMOTE" && value != "local");
    let needed = if asks { capabilities::NOTHING } else { capabilities::DAEMON };
    let filtered = config.least_privilege && asks;
    // A collection works on the store itself, and holds locks that everybody waits for.
    let yields = asks;
    Guard { keeps: config.keeps(needed), filtered, yields, ..Guard::default() }
}

/// One of Nix's other programs, such as `nix-store`, on the same store.
pub(super) fn sibling(config: &Config, name: &str, args: &[&OsStr]) -> CommandSpec {
    let program = config.program.with_file_name(name);
    spec(config, program, args.iter().map(Into::into).collect())
}

/// A guarded command on the store, by the daemon if there is one.
pub(super) fn spec(config: &Config, program: PathBuf, args: Vec<OsString>) -> CommandSpec {
    let socket = config.daemon_socket.as_deref();
    guarded(config, client(config, (&config.home, socket), program, args))
}

/// A client of the store, without a guard, that finds its home and the daemon's socket at these places.
pub(super) fn client(
    config: &Config,
    (home, socket): (&Path, Option<&Path>),
    program: PathBuf,
    args: Vec<OsString>,
) -> CommandSpec {
    let mut env = base_env(home, &config.search_path);
    env.push(("NIX_STATE_DIR".into(), config.state_dir.clone().into()));
    env.extend(conf_env(config));
    match socket {
        Some(socket) => {
            let mut remote = OsString::from("unix://");
            remote.push(socket);
            env.push(("NIX_REMOTE".into(), remote));
        }
        None => env.push(("NIX_REMOTE".into(), "local".into())),
    }
    env.extend(config.environment.iter().cloned());
    CommandSpec { program, args, env, directory: config.home.clone(), guard: None }
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
        ("NIX_SSHOPTS".into(), ssh::LIMITS.into()),
    ]
}

/// In place of a user's own settings.
pub(super) fn conf_env(config: &Config) -> Option<(OsString, OsString)> {
    config.conf.clone().map(|conf| ("NIX_USER_CONF_FILES".into(), conf.into()))
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

    const PATH: &str = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";

    fn args(what: &Buildable) -> Vec<String> {
        let mut config = Config::new("/home");
        config.nix_options = vec![("builders".into(), "@/m".into())];
        let spec = realise(&config, what, Path::new("/r/out"), Some("https://a https://b"), None);
        assert_eq!(spec.program, Path::new("nix-store"));
        spec.args.into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn an_output_is_named_in_the_way_of_all_versions() {
        let path = StorePath::parse(PATH).unwrap();
        let all = args(&Buildable::Path(path));
        assert_eq!(all[all.len() - 4..], ["--realise", "--add-root", "/r/out", PATH]);
        let derivation = StorePath::parse(&format!("{PATH}.drv")).unwrap();
        let all = args(&Buildable::Output { derivation, output: "dev".into() });
        assert_eq!(all.last().unwrap(), &format!("{PATH}.drv!dev"));
    }

    #[test]
    fn configured_settings_come_after_the_defaults() {
        let args = args(&Buildable::Path(StorePath::parse(PATH).unwrap()));
        let value = |name| args[args.iter().rposition(|a| a == name).unwrap() + 1].as_str();
        assert_eq!((value("builders"), value("max-silent-time")), ("@/m", "3600"));
        assert_eq!(value("substituters"), "https://a https://b");
    }

    #[test]
    fn who_works_on_the_store_itself_keeps_what_a_daemon_does() {
        let mut config = Config::new("/home");
        config.guard = Some("/g".into());
        let guard = |config: &Config| sibling(config, "nix-store", &[]).guard.unwrap().1;
        let powers = |config: &Config| (guard(config).keeps, guard(config).filtered);
        assert_eq!(powers(&config), (Some(capabilities::DAEMON), false));
        config.daemon_socket = Some("/run/s".into());
        assert_eq!(powers(&config), (Some(capabilities::NOTHING), true));
        config.least_privilege = false;
        assert_eq!(powers(&config), (None, false));
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
            "NIX_SSHOPTS",
            "NIX_STATE_DIR",
            "NIX_REMOTE",
            "NIX_SSL_CERT_FILE",
        ];
        assert_eq!(env, expected);
        assert!(spec.env.contains(&("NIX_REMOTE".into(), "unix:///run/s".into())));
    }
}
