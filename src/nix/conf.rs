//! The operator's nix.conf, which comes on top of the system's: what may be in it, and whether Nix takes
//! it. The settings on our own command lines win over it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::Config;
use super::redact::Redactor;
use super::text::MAX_LINE_BYTES;
use super::{NixError, RealNix};

/// Nix's default.
pub const NIX_CONF: &str = "/etc/nix/nix.conf";
/// Bytes. An evaluator is given it with the access tokens, and a pipe holds both.
pub(super) const MAX_CONF: usize = 24 << 10;

/// What else serves, or does not belong into a file that every evaluation gets.
const NOT_HERE: [(&str, &str); 8] = [
    ("access-tokens", "put them into a file and name it with --access-tokens-file"),
    ("allow-unsafe-native-code-during-evaluation", "evaluations are of others' expressions"),
    ("allowed-users", "evaluators and ssh sessions are users of the daemon"),
    ("netrc-file", "name it with --nix-option netrc-file=…, so that nothing of it is shown"),
    ("plugin-files", "evaluators have no such files"),
    ("ssl-cert-file", "put certificates below /etc/ssl, where evaluators find them too"),
    ("store", "the driver's own daemon has the store"),
    ("trusted-users", "the driver says whom its daemon trusts"),
];

/// To try it, with a build.
const LIMIT: Duration = Duration::from_secs(60);

/// What Nix makes of a nix.conf.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    /// It will say so again.
    #[error("{0}")]
    Refused(String),
    /// It could not be tried; it may be good.
    #[error("it can't be tried now: {0}")]
    Unknown(String),
}

impl From<NixError> for ConfError {
    fn from(error: NixError) -> Self {
        Self::Unknown(error.to_string())
    }
}

/// Whether each line is a setting that may be here. Nothing of a value gets into the message. Pure.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > MAX_CONF {
        return Err(format!("it has more than {MAX_CONF} bytes"));
    }
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        // As Nix has it.
        let mut words = line.split([' ', '\t', '\r']).filter(|word| !word.is_empty());
        let Some(name) = words.next() else {
            continue;
        };
        check_line(name, words.next()).map_err(|why| format!("line {}: {why}", n + 1))?;
    }
    Ok(())
}

fn check_line(name: &str, next: Option<&str>) -> Result<(), String> {
    if matches!(name, "include" | "!include") {
        return Err(format!(
            "{name}: write the settings themselves, since no other file is watched"
        ));
    }
    let is_name = name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if !is_name || next != Some("=") {
        return Err("write NAME = VALUE, with blanks around the sign".to_owned());
    }
    let bare = name.strip_prefix("extra-").unwrap_or(name);
    match NOT_HERE.iter().find(|(refused, _)| *refused == bare) {
        Some((_, way_out)) => Err(format!("{name} can't be set here: {way_out}")),
        None => Ok(()),
    }
}

impl RealNix {
    /// Whether Nix takes this file: its settings and, where builds run here, their sandbox with them.
    pub(super) async fn take_conf(
        &self,
        candidate: PathBuf,
        text: String,
    ) -> Result<(), ConfError> {
        check(&text).map_err(ConfError::Refused)?;
        if candidate.to_string_lossy().contains(':') {
            // NIX_USER_CONF_FILES is a list.
            let place = candidate.display();
            let why = format!("Nix can't be told of a path with a colon: {place}");
            return Err(ConfError::Refused(why));
        }
        let with = RealNix::open(Config { conf: Some(candidate.clone()), ..self.config().clone() });
        let tried = tokio::time::timeout(LIMIT, with.try_conf(&candidate)).await;
        tried.unwrap_or_else(|_| Err(ConfError::Unknown(format!("Nix took longer than {LIMIT:?}"))))
    }

    async fn try_conf(&self, candidate: &Path) -> Result<(), ConfError> {
        if let Some(wrong) = self.complaint(&[]).await? {
            return Err(ConfError::Refused(shown(&wrong, candidate)));
        }
        if self.config().builds {
            // A full disk fails it too, and no users for builds: it is tried again.
            self.check_settings().await?;
        }
        Ok(())
    }

    /// After the file of [`Config::conf`] was replaced: what was learnt from the former.
    pub(super) async fn conf_changed(&self) {
        let settings = tokio::time::timeout(LIMIT, self.settings()).await;
        let late = || NixError::Command {
            what: "nix show-config".to_owned(),
            detail: format!("it took longer than {LIMIT:?}"),
        };
        match settings.unwrap_or_else(|_| Err(late())) {
            Ok(json) => {
                self.use_substituters_of(&json);
                self.compare_announcement(&json);
            }
            Err(error) => tracing::warn!(%error, "which substituters there are now is not known"),
        }
    }
}

/// Nix names the file, which is a draft of ours.
fn shown(wrong: &str, candidate: &Path) -> String {
    let without = wrong.replace(&format!(" in '{}'", candidate.display()), "");
    Redactor::default().shown(&without, MAX_LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conf_is_lines_of_settings() {
        for good in [
            "",
            "# nothing\n\n",
            "substituters = https://a https://b\nextra-substituters =\n",
            "cores = 2 # of four\n  max-jobs\t= auto",
        ] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for (bad, why) in [
            ("cores=2", "line 1: write NAME = VALUE, with blanks around the sign"),
            ("\nsecret words here", "line 2: write NAME = VALUE, with blanks around the sign"),
            ("sandbox", "line 1: write NAME = VALUE, with blanks around the sign"),
            ("Sandbox = true", "line 1: write NAME = VALUE, with blanks around the sign"),
            (
                "include /etc/nix/more.conf",
                "line 1: include: write the settings themselves, since no other file is watched",
            ),
            (
                "cores = 1\nextra-access-tokens = github.com=x",
                "line 2: extra-access-tokens can't be set here: put them into a file and name it with \
                 --access-tokens-file",
            ),
            (
                "store = /tmp",
                "line 1: store can't be set here: the driver's own daemon has the store",
            ),
        ] {
            assert_eq!(check(bad).unwrap_err(), why, "{bad:?}");
        }
        assert_eq!(check(&"#".repeat(30_000)).unwrap_err(), "it has more than 24576 bytes");
    }
}
