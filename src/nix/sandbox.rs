//! The start: what Nix itself is set to, whom it trusts, and whether its builds have their sandbox.

use std::ffi::OsString;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use super::command::{Config, pairs, push_options, spec};
use super::text::{MAX_LINE_BYTES, clean};
use super::{NixError, RealNix, process};
use crate::model::{Announcement, Feature, System};
use crate::read::short;

/// What helps where the kernel or the container refuses.
const MISSING: &str = "Nix needs mount, pid, network and user namespaces and the build users of \
                       nixbld: a container must be privileged; --nix-option sandbox=false builds \
                       without a sandbox, where every build may read what the driver can";

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
    NEXT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of `nix show-config --json`.
#[derive(Deserialize)]
struct Shown {
    sandbox: Setting,
    #[serde(rename = "trusted-users")]
    trusted_users: Setting,
    #[serde(rename = "allow-new-privileges")]
    new_privileges: Setting,
}

#[derive(Deserialize)]
struct Setting {
    value: serde_json::Value,
}

impl Setting {
    fn is_on(&self) -> bool {
        self.value == true || self.value == "true"
    }
}

impl RealNix {
    /// Asks Nix for its effective settings: its substituters are the ones to probe, an evaluation must
    /// be nobody to its daemon, and builds need their sandbox.
    pub async fn check_settings(&self) -> Result<(), NixError> {
        let json = self.settings().await?;
        self.use_substituters_of(&json);
        let shown: Shown = serde_json::from_slice(&json).map_err(|err| NixError::Command {
            what: "nix show-config --json".to_owned(),
            detail: format!("it printed what is not understood: {}", short(&err)),
        })?;
        self.check_trust(&shown.trusted_users.value)?;
        if shown.new_privileges.is_on() {
            tracing::warn!("allow-new-privileges=true: {}", self.cost_of_new_privileges());
        }
        self.check_sandbox(&shown.sandbox.value).await
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
    fn check_trust(&self, trusted: &serde_json::Value) -> Result<(), NixError> {
        let uid = self.config().evaluator.uid.to_string();
        let everybody = is_trusted(trusted, &uid);
        if self.served_by_others().is_none() || !everybody {
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
    async fn check_sandbox(&self, value: &serde_json::Value) -> Result<(), NixError> {
        if value == false || value == "false" {
            tracing::warn!("sandbox=false: every build may read what the driver can");
            return Ok(());
        }
        if value == "relaxed" {
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
        let limited = said.starts_with("cloning") && said.ends_with("No space left on device");
        if ended.exit.is_ok() {
            *next_probe() = None;
            return Ok(());
        }
        Err(NixError::Command {
            what: "a build in the sandbox".to_owned(),
            detail: format!("{said}{}: {MISSING}", if limited { LIMITED } else { "" }),
        })
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

/// As many jobs as `max-jobs` has, if somebody has set it, else as there are cores; no more than there are
/// users to build as, since another would wait.
fn announcement(json: &[u8], groups: &str) -> Announcement {
    let shown: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let words = |name: &str| words(&shown[name]["value"]);
    let systems = words("system").into_iter().chain(words("extra-platforms"));
    let max_jobs = &shown["max-jobs"];
    let set = (max_jobs["value"] != max_jobs["defaultValue"]).then(|| max_jobs["value"].as_u64());
    let cores = || std::thread::available_parallelism().ok().map(|n| n.get() as u64);
    let group = shown["build-users-group"]["value"].as_str().unwrap_or_default();
    let users = users_of(groups, group).unwrap_or(u64::MAX);
    let jobs = set.flatten().or_else(cores).map(|jobs| jobs.min(users));
    Announcement {
        max_jobs: jobs.and_then(|jobs| u32::try_from(jobs).ok()?.try_into().ok()),
        systems: systems.filter_map(|system| System::parse(&system)).collect(),
        features: words("system-features").iter().filter_map(|f| Feature::parse(f)).collect(),
    }
}

fn groups() -> String {
    fs::read_to_string("/etc/group").unwrap_or_default()
}

/// How many members a group has; `None`: there is no such group, as where builds are root's.
fn users_of(groups: &str, name: &str) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let members = group.split(':').nth(2)?;
    Some(members.split(',').filter(|member| !member.is_empty()).count() as u64)
}

/// A setting's words, whether it is a list or a text.
fn words(value: &serde_json::Value) -> Vec<String> {
    let texts: Vec<&str> = match value.as_array() {
        Some(list) => list.iter().filter_map(serde_json::Value::as_str).collect(),
        None => value.as_str().into_iter().collect(),
    };
    texts.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// Whether a setting such as `root * @wheel`, as a list or as text, names the user or everybody.
fn is_trusted(users: &serde_json::Value, uid: &str) -> bool {
    words(users).into_iter().any(|user| user == "*" || user == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_what_is_set_or_fits() {
        let json = |max: u32| {
            format!(
                r#"{{"system":{{"value":"x86_64-linux"}},"extra-platforms":{{"value":["i686-linux"]}},
                "system-features":{{"value":["kvm"]}},"build-users-group":{{"value":"nixbld"}},
                "max-jobs":{{"value":{max},"defaultValue":1}}}}"#
            )
        };
        let jobs = |max: u32, groups: &str| {
            let said = announcement(json(max).as_bytes(), groups);
            assert_eq!((said.systems.len(), said.features.len()), (2, 1));
            said.max_jobs.map_or(0, u32::from)
        };
        let cores = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
        let users = "root:x:0:\nnixbld:x:30000:nixbld1,nixbld2,nixbld3\n";
        assert_eq!((jobs(2, users), jobs(9, users), jobs(0, users)), (2, 3, 0));
        assert_eq!((jobs(1, ""), jobs(1, users)), (cores, cores.min(3)));
        assert_eq!(users_of("nixbld2:x:1:a\nnixbld:x:2:\n", "nixbld"), Some(0));
    }

    #[test]
    fn everybody_is_found_among_the_trusted() {
        let is = |json: &str| is_trusted(&serde_json::from_str(json).unwrap(), "30999");
        for json in [r#"["root","*"]"#, r#""root *""#, r#"["30999"]"#] {
            assert!(is(json), "{json}");
        }
        for json in [r#"["root","@wheel"]"#, r#""root""#, "[]", "null"] {
            assert!(!is(json), "{json}");
        }
    }
}
