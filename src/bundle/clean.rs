//! Takes secrets out of a bundle's parts: what the driver's own files and settings have of them, by value, and
//! what looks like one in a URL or a nix.conf.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::HIDDEN;
use crate::nix::{Redactor, secrets_of_access_tokens, secrets_of_netrc};
use crate::read::up_to;

/// Bytes of a file that are read for its secrets.
const MAX: usize = 4 << 20;
/// In the name of a setting of Nix's whose value is one, and of those that are but a file's name.
const SECRET: [&str; 3] = ["token", "password", "secret"];
const FILES: [&str; 2] = ["secret-key-files", "secret-key-file"];

/// Where the driver has secrets.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub access_tokens: Vec<PathBuf>,
    pub netrcs: Vec<PathBuf>,
    /// Values of settings.
    pub values: Vec<String>,
}

/// Cheap enough to clone.
#[derive(Debug, Clone, Default)]
pub struct Cleaner(Redactor);

impl Cleaner {
    /// Blocking. A file that can't be read has none to show.
    pub fn of(known: &Known) -> Self {
        let text = |path: &Path| {
            String::from_utf8_lossy(&up_to(path, MAX).unwrap_or_default()).into_owned()
        };
        let tokens =
            known.access_tokens.iter().flat_map(|file| secrets_of_access_tokens(&text(file)));
        let netrcs = known.netrcs.iter().flat_map(|file| secrets_of_netrc(&text(file)));
        let values = known.values.iter().flat_map(|value| passwords(value));
        Self(Redactor::new(tokens.chain(netrcs).chain(values)))
    }

    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.0.clean(text)
    }

    /// Of a file with this name: JSON stays JSON.
    pub fn clean_file(&self, name: &str, text: &str) -> String {
        let is_json = Path::new(name).extension().is_some_and(|of| of == "json");
        let json = is_json.then(|| serde_json::from_str(text).ok()).flatten();
        match json {
            Some(value) => format!("{:#}\n", self.clean_json(value)),
            None => self.clean(text).into_owned(),
        }
    }

    fn clean_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.clean(&text).into_owned()),
            Value::Array(all) => all.into_iter().map(|one| self.clean_json(one)).collect(),
            Value::Object(all) => {
                all.into_iter().map(|(name, one)| (name, self.clean_json(one))).collect()
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        }
    }
}

/// Of `scheme://user:password@host`; a token may stand in the place of the user.
fn passwords(value: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in value.split("://").skip(1) {
        let ends = |c: char| c == '/' || c == '?' || c == '#' || c.is_whitespace();
        let authority = part.split(ends).next().unwrap_or_default();
        if let Some((userinfo, _)) = authority.rsplit_once('@')
            && let Some((_, password)) = userinfo.split_once(':')
        {
            found.push(password.to_owned());
        }
    }
    found
}

/// Whether a setting of Nix's is a secret itself.
pub(super) fn is_secret(name: &str) -> bool {
    !FILES.contains(&name) && SECRET.iter().any(|word| name.contains(word))
}

/// A nix.conf without the values of what is secret.
pub(super) fn nix_conf(text: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some((name, _)) if is_secret(name.trim()) => format!("{name}= {HIDDEN}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn secrets_of_files_and_settings_go_by_value() {
        let dir = tempfile::tempdir().unwrap();
        let [tokens, netrc] = ["tokens", "netrc"].map(|name| dir.path().join(name));
        fs::write(&tokens, "github.com=ghp_abcdef").unwrap();
        fs::write(&netrc, "machine h login u password s3cret-word").unwrap();
        let cleaner = Cleaner::of(&Known {
            access_tokens: vec![tokens, dir.path().join("none")],
            netrcs: vec![netrc],
            values: vec!["https://u:hunter2-x@h/p ssh://k@h".to_owned()],
        });
        let text = "ghp_abcdef s3cret-word hunter2-x https://o:other@h/";
        assert_eq!(cleaner.clean(text), "*** *** *** https://h/");
    }

    #[test]
    fn json_stays_json() {
        let cleaner = Cleaner::default();
        let text = r#"{"a":["x?token=hunter2\"",{"b":"https://u:p\"q@h/"}],"n":[1,true,null]}"#;
        let clean = cleaner.clean_file("x.json", text);
        let value: Value = serde_json::from_str(&clean).unwrap();
        assert!(!clean.contains("hunter2") && value["n"][0] == 1, "{clean}");
        assert_eq!(cleaner.clean_file("x.txt", "https://u@h"), "https://h");
        assert_eq!(cleaner.clean_file("x.json", "no json https://u@h"), "no json https://h");
    }

    #[test]
    fn a_nix_conf_shows_no_secret() {
        let text = "# x\naccess-tokens = github.com=a b.c=d\nextra-access-tokens=e=f\n\
                    secret-key-files = /etc/key\n!include more.conf\ncores = 3";
        let wanted = "# x\naccess-tokens = ***\nextra-access-tokens= ***\n\
                      secret-key-files = /etc/key\n!include more.conf\ncores = 3\n";
        assert_eq!(nix_conf(text), wanted);
        assert!(is_secret("x-token") && !is_secret("netrc-file"));
    }

    #[test]
    fn passwords_of_urls_are_found() {
        assert_eq!(passwords("a=https://u:p:q@h:1/@x https://t@h file:///x:y@z"), ["p:q"]);
    }
}
