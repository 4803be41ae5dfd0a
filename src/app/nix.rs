//! Nix at the start of a node: its settings, and whether it is fit to serve.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

use super::{NodeError, fail};
use crate::actors::uploads::UploadsConfig;
use crate::config::{BuildOnArg, DEFAULT_STATE_DIR, NodeConfig};
use crate::nix::ssh::SshClient;
use crate::nix::{
    BuildOn, Capabilities, Config, Elsewhere, Evaluator, Limit, Limits, ProbeLimits, PushTo,
    RealNix,
};

const STORE_STATE: &str = "/nix/var/nix";

/// `roots`: where ours will be, which a lent daemon must see. `builds`: it evaluates, fetches and builds.
pub(super) async fn open(
    config: Config,
    roots: &Path,
    builds: bool,
) -> Result<(RealNix, Capabilities), NodeError> {
    let (home, is_lent) = (config.home.clone(), config.daemon_lent);
    fs::create_dir_all(&home).map_err(|e| fail(&format!("can't make {}", home.display()))(&e))?;
    let nix = RealNix::open(config);
    let leftovers = nix.end_leftovers().await;
    if leftovers > 0 {
        tracing::info!(leftovers, "ended Nix processes of an earlier start");
    }
    let capabilities = nix.probe().await.map_err(|e| {
        NodeError(format!("{e}: install Nix (make demo does) or name it with --nix"))
    })?;
    nix.check_options().await.map_err(|e| NodeError(e.to_string()))?;
    if is_lent {
        nix.roots_visible(roots).await.map_err(|e| fail("the lent nix-daemon")(&e))?;
    } else {
        nix.init_store().await.map_err(|e| fail("can't make the store")(&e))?;
    }
    if builds {
        nix.check_settings().await.map_err(|e| fail("this Nix can't serve")(&e))?;
    }
    Ok((nix, capabilities))
}

pub(super) fn config_of(config: &NodeConfig) -> Config {
    let settings = &config.builds;
    let ssh = SshClient {
        key: config.ssh.ssh_key.as_ref().map(|_| ssh_key(config)),
        known_hosts: config.ssh.ssh_known_hosts.clone(),
        port: config.ssh.ssh_port,
    };
    let own_socket = config.process.run_dir.join("nix-daemon/socket");
    Config {
        program: config.process.nix.clone(),
        daemon_socket: Some(config.nix_daemon_socket.clone().unwrap_or(own_socket)),
        environment: vec![("NIX_SSHOPTS".into(), ssh.options().into())],
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
        elsewhere: elsewhere(config),
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
            uid: settings.eval_uid,
            visible: settings.eval_path.clone(),
            homes: config.process.state_dir.join("tenants"),
        },
        ..Config::new(config.process.state_dir.join("home"))
    }
}

/// Of our own daemon. Where a cache builds here, it signs what it builds, since that goes to the cache as
/// it is. Nix builds nothing with a key that it can't read, so such a key is left out.
pub(super) fn daemon_config(config: &NodeConfig) -> Config {
    let mut daemon = config_of(config);
    let key = config.cache.signing_key.as_ref().filter(|_| config.sshd.ssh_listen.is_some());
    if let Some(key) = key {
        match is_signing_key(key) {
            Ok(()) => {
                let key = key.display().to_string();
                daemon.nix_options.push(("secret-key-files".to_owned(), key));
            }
            Err(why) => tracing::error!(
                key = %key.display(), why, "builds are not signed: --signing-key can't be used"
            ),
        }
    }
    daemon
}

/// `name:` and the base64 of an ed25519 secret key.
fn is_signing_key(path: &Path) -> Result<(), String> {
    const BYTES: usize = 64;
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let key = text.trim().split_once(':').and_then(|(_, key)| STANDARD.decode(key).ok());
    match key {
        Some(key) if key.len() == BYTES => Ok(()),
        _ => Err("it is no key as `nix key generate-secret` prints it".to_owned()),
    }
}

/// The copy of the private key that ssh uses: a mounted one may have any owner and mode.
pub(super) fn ssh_key(config: &NodeConfig) -> PathBuf {
    config.process.run_dir.join("ssh/id")
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
pub(super) fn uploads(config: &NodeConfig) -> Option<UploadsConfig> {
    let settings = &config.cache;
    let to = match (&settings.upload_command, &settings.cache) {
        _ if settings.no_upload => return None,
        (Some(program), _) => PushTo::Command { program: program.clone() },
        (None, Some(url)) => {
            PushTo::Store { url: url.clone(), signing_key: settings.signing_key.clone() }
        }
        (None, None) => return None,
    };
    Some(UploadsConfig {
        to,
        records: config.process.state_dir.join("uploads"),
        roots: roots_dir(config).join("uploads"),
        attempts: settings.upload_attempts,
        slots: settings.upload_slots.into(),
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
    let gcroots = Path::new(STORE_STATE).join("gcroots");
    if config.process.state_dir == Path::new(DEFAULT_STATE_DIR) {
        return gcroots.join("nix-csi");
    }
    let digest = Sha256::digest(config.process.state_dir.as_os_str().as_bytes());
    gcroots.join(format!("nix-csi-{}", hex::encode(&digest[..6])))
}
