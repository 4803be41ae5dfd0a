//! The start: what Nix itself is set to, whom it trusts, and whether its builds have their sandbox.

use std::ffi::OsString;
use std::fs;
use std::sync::{Mutex, MutexGuard};

use super::command::{Config, pairs, push_options, spec};
use super::settings::{Setting, Settings, announcement};
use super::text::{MAX_LINE_BYTES, clean};
use super::{NixError, RealNix, process};
use crate::lock::lock;
use crate::model::Announcement;

/// What helps where the kernel or the container refuses.
const MISSING: &str = "Nix needs mount, pid, network and user namespaces and the build users of \
                       nixbld: a container must be privileged; --nix-option sandbox=false builds \
                       without a sandbox, where every build may read what the driver can";

/// user_namespaces(7), and who owns what lies in `/proc/sys`.
const ROOTS_BUILDS: &str = "every pod's build is root in a user namespace whose /proc lets it write settings \
                            of the node's kernel, which is a way to be root of the node: leave it out, so that \
                            builds run as the users of nixbld";

/// What Nix says last, after why.
const VAGUE: &str = "unable to start build process";
/// clone(2), ENOSPC.
const LIMITED: &str = " (a limit of namespaces in /proc/sys/user is reached)";

/// Builds an empty tree, in whatever Nix builds in, and needs no shell for it. The number makes
/// it another derivation each time: what is valid already would not be built.
fn probe(number: u128) -> String {
    format!(
        "derivation {{ name = \"nix-csi-sandbox-probe\"; system = \"builtin\"; \
         builder = \"builtin:buildenv\"; derivations = \"\"; \
         manifest = builtins.toFile \"manifest\" \"\"; number = \"{number}\"; }}"
    )
}

/// The number of the probe that was not built yet: tries that fail leave one derivation in all.
fn next_probe() -> MutexGuard<'static, Option<u128>> {
    static NEXT: Mutex<Option<u128>> = Mutex::new(None);
    lock(&NEXT)
}

impl RealNix {
    /// Asks Nix for its effective settings: its substituters are the ones to probe, an evaluation must
    /// be nobody to its daemon, and builds need their sandbox.
    pub async fn check_settings(&self) -> Result<(), NixError> {
        let json = self.settings().await?;
        self.use_substituters_of(&json);
        let settings = Settings::parse(&json)?;
        self.check_trust(&settings.trusted_users)?;
        if settings.new_privileges.is_on() {
            tracing::warn!("allow-new-privileges=true: {}", self.cost_of_new_privileges());
        }
        if settings.build_users.text().is_empty() {
            tracing::warn!("build-users-group is empty: {ROOTS_BUILDS}");
        }
        self.check_sandbox(&settings).await
    }

    /// What builds of our own daemon get of it goes by no_new_privs, which they inherit.
    fn cost_of_new_privileges(&self) -> &'static str {
        if self.config().least_privilege && self.served_by_others().is_none() {
            return "it has no effect, since the daemon has given up new privileges for all its builds; \
                    --privileges all leaves them";
        }
        "set-user-ID programs act as their owners in every pod's builds: one of root's that sandbox-paths \
         shows is a way to be root there"
    }

    /// To a daemon a trusted user is root. Our own daemon is told whom to trust.
    fn check_trust(&self, trusted: &Setting) -> Result<(), NixError> {
        let uid = self.config().evaluator.uid.to_string();
        if self.served_by_others().is_none() || !trusted.names_user(&uid) {
            return Ok(());
        }
        Err(NixError::Command {
            what: "the settings of the nix-daemon".to_owned(),
            detail:
                "trusted-users names everybody, so that a pod's expression would be root: name \
                     the users that need it"
                    .to_owned(),
        })
    }

    /// Builds something, so that a node without a sandbox says so at its start and not with the first
    /// pod.
    async fn check_sandbox(&self, settings: &Settings) -> Result<(), NixError> {
        if settings.sandbox.is_off() {
            tracing::warn!("sandbox=false: every build may read what the driver can");
            return Ok(());
        }
        if settings.sandbox.is("relaxed") {
            // A pod's expression may say `__noChroot`.
            tracing::warn!("sandbox=relaxed: every build that asks for it may read the node");
        }
        let config = self.config();
        let number = *next_probe().get_or_insert_with(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(0, |now| now.as_nanos())
        });
        let mut args: Vec<OsString> = Vec::new();
        let own = [("sandbox-fallback", "false"), ("builders", ""), ("substitute", "false")];
        push_options(&mut args, own.into_iter());
        push_options(&mut args, pairs(&config.nix_options));
        // A node that leaves all builds to the cache may have none.
        push_options(&mut args, [("max-jobs", "1")].into_iter());
        args.extend(["--no-out-link", "--expr"].map(Into::into));
        args.push(probe(number).into());
        let config = Config { daemon_socket: self.served_by_others(), ..config.clone() };
        let spec = spec(&config, config.program.with_file_name("nix-build"), args);
        let mut said = String::new();
        let on_line = |line: &[u8]| {
            let line = clean(&String::from_utf8_lossy(line), MAX_LINE_BYTES);
            if let Some(error) = line.trim().strip_prefix("error: ")
                && (said.is_empty() || error != VAGUE)
            {
                error.clone_into(&mut said);
            }
        };
        let (ended, ()) = process::run(&spec, &[], on_line, ()).await?;
        if ended.exit.is_ok() {
            *next_probe() = None;
            return Ok(());
        }
        let detail = refused(&said, settings.hook.text());
        Err(NixError::Command { what: "a build in the sandbox".to_owned(), detail })
    }

    /// What this Nix can build, and how much at once.
    pub async fn announcement(&self) -> Result<Announcement, NixError> {
        let said = announcement(&self.settings().await?, &groups());
        Ok(self.announced().get_or_init(|| said).clone())
    }

    /// After settings have changed: sshd says what it was started with.
    pub(super) fn compare_announcement(&self, json: &[u8]) {
        let now = announcement(json, &groups());
        if let Some(said) = self.announced().get().filter(|said| **said != now) {
            tracing::warn!(
                %said, %now, "the cache is told of what can be built here as it was at the start: restart"
            );
        }
    }

    /// Nix's effective settings as JSON.
    pub(super) async fn settings(&self) -> Result<Vec<u8>, NixError> {
        let config = self.config();
        let mut args = vec!["--extra-experimental-features".into(), "nix-command".into()];
        push_options(&mut args, pairs(&config.nix_options));
        // An alias that all versions know.
        args.extend(["show-config", "--json"].map(Into::into));
        let spec = spec(config, config.program.clone(), args);
        process::output(&spec, "nix show-config").await
    }
}

fn groups() -> String {
    fs::read_to_string("/etc/group").unwrap_or_default()
}

/// Why, and what helps. A hook that fails after a build fails the build.
fn refused(said: &str, hook: &str) -> String {
    if !hook.is_empty() && said.contains(hook) {
        return format!(
            "{said}: the post-build-hook of nix.conf fails, and with it every build: mend {hook}, or leave it out"
        );
    }
    let is_fork = ["cloning", "unable to fork"].iter().any(|what| said.starts_with(what));
    let limited = is_fork && said.ends_with("No space left on device");
    format!("{said}{}: {MISSING}", if limited { LIMITED } else { "" })
}
