//! Nix at the start of a node: its settings, and whether it is fit to serve.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{NodeError, fail};
use crate::actors::gc::used::Used;
use crate::actors::metrics::show_build;
use crate::actors::reconciler::{self, Item, Kind, NixConf};
use crate::actors::uploads::UploadsConfig;
use crate::config::{BuildOnArg, DEFAULT_STATE_DIR, NodeConfig, PrivilegesArg, ProcessSettings};
use crate::model::STORE_DIR;
use crate::mount;
use crate::nix::ssh::SshClient;
use crate::nix::{
    BuildOn, Capabilities, Config, Elsewhere, Evaluator, Limit, Limits, ProbeLimits, PushTo,
    RealNix, holes, sweep_secrets,
};

const STORE_STATE: &str = "/nix/var/nix";
/// Below the run directory: copies of what is mounted.
const MOUNTED: &str = "mounted";

/// `roots`: where ours will be, which a lent daemon must see, as it must the files of secrets.
pub(super) async fn open(
    config: Config,
    roots: &Path,
    process: &ProcessSettings,
) -> Result<(RealNix, Capabilities), NodeError> {
    let (home, is_lent, builds) = (config.home.clone(), config.daemon_lent, config.builds);
    let builds_here =
        config.elsewhere.as_ref().is_none_or(|elsewhere| elsewhere.on != BuildOn::Cache);
    fs::create_dir_all(&home).map_err(|e| fail(&format!("can't make {}", home.display()))(&e))?;
    // Of a process before this one.
    sweep_secrets(&config.secrets).map_err(|e| NodeError(e.to_string()))?;
    let nix = RealNix::open(config);
    let leftovers = nix.end_leftovers().await;
    if leftovers > 0 {
        tracing::info!(leftovers, "ended Nix processes of an earlier start");
    }
    let capabilities = nix.probe().await.map_err(|e| {
        NodeError(format!("{e}: install Nix (make demo does) or name it with --nix"))
    })?;
    for hole in holes(&capabilities).filter(|_| builds) {
        tracing::warn!(
            hole = hole.id,
            "this {capabilities} lets builds out, unless its distribution has mended it: {}; builds \
             are their pods' authors' (docs/security.md)",
            hole.what
        );
    }
    show_build(&format!("{capabilities}.{}", capabilities.patch));
    nix.check_options().await.map_err(|e| NodeError(e.to_string()))?;
    match conf(process, &nix) {
        Some(conf) => conf.settle().await.map_err(|e| fail("--nix-conf")(&e))?,
        None => forget_conf(process)?,
    }
    if is_lent {
        nix.roots_visible(roots).await.map_err(|e| fail("the lent nix-daemon")(&e))?;
    } else {
        nix.init_store().await.map_err(|e| fail("can't make the store")(&e))?;
    }
    if builds {
        check_noexec(is_lent, builds_here)?;
        nix.check_settings().await.map_err(|e| fail("this Nix can't serve")(&e))?;
    }
    Ok((nix, capabilities))
}

/// Builds start programs of the store where it is; volumes show them elsewhere. A lent daemon's builds see its own
/// mount of the store, and not this one.
fn check_noexec(is_lent: bool, builds_here: bool) -> Result<(), NodeError> {
    let store = Path::new(STORE_DIR);
    if !mount::is_noexec(store).map_err(|e| NodeError(e.to_string()))? {
        return Ok(());
    }
    if is_lent || !builds_here {
        tracing::warn!(
            "{STORE_DIR} is mounted noexec: nothing built here, and no volume of hard links, could start its programs"
        );
        return Ok(());
    }
    Err(NodeError(format!(
        "{STORE_DIR} is mounted noexec, so that builds could not start a program of it: have the store on another file \
         system (in the chart, node.storePath), or let the cache build (--build-on cache)"
    )))
}

/// The operator's nix.conf, if there may be one. The copy that is in use survives a restart.
pub(super) fn conf(process: &ProcessSettings, nix: &RealNix) -> Option<NixConf> {
    let (source, target) = (process.nix_conf.clone()?, conf_in_use(process)?);
    Some(NixConf { source, target, nix: Arc::new(nix.clone()) })
}

pub(super) fn conf_in_use(process: &ProcessSettings) -> Option<PathBuf> {
    process.nix_conf.as_ref().map(|_| conf_copy(process))
}

fn conf_copy(process: &ProcessSettings) -> PathBuf {
    process.state_dir.join("nix.conf")
}

/// What was good when there was one is not good for ever.
fn forget_conf(process: &ProcessSettings) -> Result<(), NodeError> {
    let copy = conf_copy(process);
    match fs::remove_file(&copy) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(fail(&format!("can't remove {}", copy.display()))(&e))
        }
        _ => Ok(()),
    }
}

/// A node's mounted files, and where their copies are that Nix and ssh read.
pub(super) fn mounted(config: &NodeConfig) -> Vec<Item> {
    let each = [
        (Kind::PrivateKey, &config.ssh.ssh_key),
        (Kind::KnownHosts, &config.ssh.ssh_known_hosts),
        (Kind::SigningKey, &config.cache.signing_key),
    ];
    each.into_iter().filter_map(|(kind, source)| copied(&config.process, kind, source)).collect()
}

/// At the end of a process that ends in order: nothing secret is left behind. The next start copies anew.
pub(super) fn remove_copies(process: &ProcessSettings) {
    let copies = process.run_dir.join(MOUNTED);
    if let Err(error) = reconciler::remove_copies(&copies) {
        tracing::warn!(copies = %copies.display(), %error, "copies of keys are left");
    }
}

/// A mounted file may have any owner and mode, and be replaced by what is none.
pub(super) fn copied(
    process: &ProcessSettings,
    kind: Kind,
    source: &Option<PathBuf>,
) -> Option<Item> {
    let source = source.clone()?;
    Some(Item { kind, source, target: process.run_dir.join(MOUNTED).join(kind.as_str()) })
}

pub(super) fn config_of(config: &NodeConfig) -> Config {
    let settings = &config.builds;
    let mounted = mounted(config);
    let copy = |kind| mounted.iter().find(|item| item.kind == kind).map(|item| item.target.clone());
    let ssh = SshClient {
        key: copy(Kind::PrivateKey),
        known_hosts: copy(Kind::KnownHosts),
        port: config.ssh.ssh_port,
    };
    let own_socket = config.process.run_dir.join("nix-daemon/socket");
    Config {
        program: config.process.programs.nix.clone(),
        search_path: config.process.programs.search_path.clone(),
        daemon_socket: Some(config.nix_daemon_socket.clone().unwrap_or(own_socket)),
        environment: vec![("NIX_SSHOPTS".into(), ssh.options().into())],
        conf: conf_in_use(&config.process),
        nix_options: nix_options(config),
        limits: Limits {
            evaluate: Limit::new("--eval-timeout", settings.eval_timeout),
            realise: Limit::new("--realise-timeout", settings.realise_timeout),
            build: Limit::new("--build-timeout", settings.build_timeout),
            silence: Limit::new("--max-silent-time", settings.max_silent_time),
            stall: Limit::new("--stall-timeout", settings.stall_timeout),
            upload: Limit::new("--upload-timeout", config.cache.upload_timeout),
        },
        guard: Some("/proc/self/exe".into()),
        least_privilege: config.process.privileges == PrivilegesArg::Least,
        elsewhere: elsewhere(config),
        cache: config.cache.cache.clone(),
        secrets: config.process.run_dir.join("secrets"),
        token_exchange: settings.token_exchange.clone(),
        daemon_lent: config.nix_daemon_socket.is_some(),
        // A cache sends builds with inputs that nobody signed.
        trusted_users: if config.sshd.ssh_listen.is_some() { "root nix" } else { "root" }
            .to_owned(),
        probe: ProbeLimits { limit: settings.probe_timeout, remember: settings.probe_memory },
        evaluator: Evaluator {
            mode: settings.eval_mode.into(),
            import_from_derivation: settings.allow_import_from_derivation,
            nix_path: settings.nix_path.clone(),
            allowed_uris: settings.allowed_uri.clone(),
            access_tokens: settings.access_tokens_file.clone(),
            memory: settings.eval_memory.as_u64(),
            disk: settings.eval_disk.as_u64(),
            uid: settings.eval_uid,
            visible: settings.eval_path.clone(),
            homes: config.process.state_dir.join("tenants"),
        },
        ..Config::new(config.process.state_dir.join("home"))
    }
}

/// Of our own daemon. Where a cache builds here, it signs what it builds, since that goes to the cache as
/// it is.
pub(super) fn daemon_config(config: &NodeConfig) -> Config {
    let mut daemon = config_of(config);
    if config.sshd.ssh_listen.is_some() {
        daemon.nix_options.extend(signs_with(signing_key(config)));
    }
    daemon
}

pub(super) fn signing_key(config: &NodeConfig) -> Option<Item> {
    copied(&config.process, Kind::SigningKey, &config.cache.signing_key)
}

/// Whether there is a copy: of a key that never was one there is none.
pub(super) fn is_usable(key: &Item) -> bool {
    fs::File::open(&key.target).is_ok()
}

/// Nix builds nothing with a key that it can't read, so that one that can't be used is left out.
pub(super) fn signs_with(key: Option<Item>) -> Option<(String, String)> {
    let key = key?;
    let Item { source, target, .. } = &key;
    if is_usable(&key) {
        return Some(("secret-key-files".to_owned(), target.display().to_string()));
    }
    tracing::error!(
        key = %source.display(), "builds are not signed: --signing-key can't be used"
    );
    None
}

/// A person's `--nix-option` wins over ours, but for what adds to it.
fn nix_options(config: &NodeConfig) -> Vec<(String, String)> {
    let list =
        |name: &str, all: &[String]| (!all.is_empty()).then(|| (name.to_owned(), all.join(" ")));
    let named = list("substituters", &config.builds.substituter);
    let cache = list("extra-substituters", config.cache.cache.as_slice());
    let keys = list("extra-trusted-public-keys", &config.cache.trusted_public_key);
    named.into_iter().chain(config.process.nix_option.clone()).chain(cache).chain(keys).collect()
}

fn elsewhere(config: &NodeConfig) -> Option<Elsewhere> {
    let on = match config.cache.build_on {
        BuildOnArg::Local => return None,
        BuildOnArg::Cache => BuildOn::Cache,
        BuildOnArg::Auto => BuildOn::Auto,
    };
    config.cache.cache.clone().map(|store| Elsewhere { on, store })
}

/// Where closures go, if anywhere.
pub(super) fn uploads(config: &NodeConfig, used: &Used) -> Option<UploadsConfig> {
    let settings = &config.cache;
    let to = match (&settings.upload_command, &settings.cache) {
        _ if settings.no_upload => return None,
        (Some(program), _) => PushTo::Command { program: program.clone() },
        (None, Some(url)) => {
            let signing_key = signing_key(config).map(|key| key.target);
            PushTo::Store { url: url.clone(), signing_key }
        }
        (None, None) => return None,
    };
    Some(UploadsConfig {
        to,
        derivations: settings.upload_derivations,
        records: config.process.state_dir.join("uploads"),
        roots: roots_dir(config).join("uploads"),
        attempts: settings.upload_attempts,
        slots: settings.upload_slots.into(),
        used: used.clone(),
    })
}

/// Without an uploader nobody else lets go of what waits; should there be one again, it makes its roots
/// anew, of what is still there.
pub(super) fn release_uploads(config: &NodeConfig) {
    let roots = roots_dir(config).join("uploads");
    for entry in fs::read_dir(&roots).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_symlink())
            && let Err(error) = fs::remove_file(entry.path())
        {
            tracing::warn!(root = %entry.path().display(), %error, "can't remove a GC root");
        }
    }
}

/// Roots of nodes with other state directories are not ours to sweep.
pub(super) fn roots_dir(config: &NodeConfig) -> PathBuf {
    roots_of(&config.process.state_dir)
}

pub(super) fn roots_of(state_dir: &Path) -> PathBuf {
    let gcroots = Path::new(STORE_STATE).join("gcroots");
    if state_dir == Path::new(DEFAULT_STATE_DIR) {
        return gcroots.join("nix-csi");
    }
    let digest = Sha256::digest(state_dir.as_os_str().as_bytes());
    gcroots.join(format!("nix-csi-{}", hex::encode(&digest[..6])))
}
