//! The operator's nix.conf, which comes on top of the system's: what may be in it, and whether Nix takes
//! it. The settings on our own command lines win over it.

use std::path::{Path, PathBuf};

use super::command::Config;
use super::error::io_error;
use super::redact::Redactor;
use super::text::{MAX_LINE_BYTES, clean};
use super::{NixError, RealNix};

/// Bytes. An evaluator is given it with the access tokens, and a pipe holds both.
pub const MAX_CONF: usize = 24 << 10;

/// What else serves, or does not belong into a file that every evaluation gets.
const NOT_HERE: [(&str, &str); 3] = [
    ("access-tokens", "put them into a file and name it with --access-tokens-file"),
    ("store", "the driver's own daemon has the store"),
    ("trusted-users", "the driver says whom its daemon trusts"),
];

/// Whether each line is a setting that may be here. Nothing of a value gets into the message. Pure.
pub fn check(text: &str) -> Result<(), String> {
    if text.len() > MAX_CONF {
        return Err(format!("it has more than {MAX_CONF} bytes"));
    }
    for (n, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
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
    // As Nix has it: blanks around the sign.
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
    pub(super) async fn take_conf(&self, candidate: PathBuf) -> Result<(), NixError> {
        let read = {
            let candidate = candidate.clone();
            tokio::task::spawn_blocking(move || std::fs::read_to_string(candidate)).await
        };
        let read = read.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        let text = read.map_err(|err| io_error("read", &candidate, err))?;
        check(&text).map_err(refused)?;
        if candidate.to_string_lossy().contains(':') {
            // NIX_USER_CONF_FILES is a list.
            return Err(refused(format!(
                "{}: Nix can't be told of a path with a colon",
                candidate.display()
            )));
        }
        let with = RealNix::open(Config { conf: Some(candidate.clone()), ..self.config().clone() });
        if let Some(wrong) = with.complaint(&[]).await? {
            return Err(refused(shown(&wrong, &candidate)));
        }
        if self.config().builds {
            with.check_settings().await?;
        }
        Ok(())
    }

    /// After the file of [`Config::conf`] was replaced: what was learnt from the former.
    pub(super) async fn conf_changed(&self) {
        match self.settings().await {
            Ok(json) => self.use_substituters_of(&json),
            Err(error) => tracing::warn!(%error, "which substituters there are now is not known"),
        }
    }
}

fn refused(detail: String) -> NixError {
    NixError::Command { what: "nix.conf".to_owned(), detail }
}

/// Nix names the file, which is a draft of ours.
fn shown(wrong: &str, candidate: &Path) -> String {
    let without = wrong.replace(&format!(" in '{}'", candidate.display()), "");
    clean(&Redactor::default().clean(&without), MAX_LINE_BYTES)
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
