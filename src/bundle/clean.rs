//! Takes secrets out of a bundle's parts: what the driver's own files and settings have of them, by value, and
//! what looks like one in a URL or a nix.conf.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::HIDDEN;
use crate::nix::{Redactor, secrets_of_access_tokens, secrets_of_netrc};
use crate::read::up_to;

/// Bytes of a file that are read for its secrets.
const MAX: usize = 4 << 20;
/// Files that are read for what they include.
const MAX_CONFS: usize = 32;
/// In the name of a setting of Nix's whose value is one, and of those that are but a file's name.
const SECRET: [&str; 4] = ["token", "password", "secret", "impure-env"];
const FILES: [&str; 2] = ["secret-key-files", "secret-key-file"];

/// Where the driver has secrets.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub access_tokens: Vec<PathBuf>,
    pub netrcs: Vec<PathBuf>,
    /// Each a nix.conf; what they include and which netrc they name is found there.
    pub confs: Vec<PathBuf>,
    /// Values of settings; `name=value` may be a setting of Nix's.
    pub values: Vec<String>,
}

/// Cheap enough to clone.
#[derive(Debug, Clone, Default)]
pub struct Cleaner(Redactor);

impl Cleaner {
    /// Blocking. A file that can't be read has none to show.
    pub fn of(known: &Known) -> Self {
        let mut told = Told { netrcs: known.netrcs.clone(), secrets: Vec::new() };
        for value in &known.values {
            told.secrets.extend(passwords(value));
            if let Some((name, value)) = option(value) {
                told.setting(name, value);
            }
        }
        told.confs(&known.confs);
        let Told { secrets, netrcs } = told;
        let tokens =
            known.access_tokens.iter().flat_map(|file| secrets_of_access_tokens(&text(file)));
        let netrcs = netrcs.iter().flat_map(|file| secrets_of_netrc(&text(file)));
        Self(Redactor::new(tokens.chain(netrcs).chain(secrets)))
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

/// What can't be read has nothing in it.
fn text(path: &Path) -> String {
    String::from_utf8_lossy(&up_to(path, MAX).unwrap_or_default()).into_owned()
}

/// What settings of Nix's tell.
struct Told {
    secrets: Vec<String>,
    netrcs: Vec<PathBuf>,
}

impl Told {
    fn setting(&mut self, name: &str, value: &str) {
        match name.trim() {
            "netrc-file" => self.netrcs.push(value.trim().into()),
            name if is_secret(name) => self.secrets.extend(words(value)),
            _ => {}
        }
    }

    /// Of files and of what they include, those that are named first.
    fn confs(&mut self, files: &[PathBuf]) {
        let mut left: VecDeque<_> = files.iter().cloned().collect();
        let mut seen = BTreeSet::new();
        while let Some(file) = left.pop_front() {
            if seen.len() == MAX_CONFS || !seen.insert(file.clone()) {
                continue;
            }
            for line in text(&file).lines() {
                let line = line.split('#').next().unwrap_or_default();
                self.secrets.extend(passwords(line));
                let mut words = line.split_whitespace();
                if let (Some("include" | "!include"), Some(path)) = (words.next(), words.next()) {
                    left.push_back(file.with_file_name("").join(path));
                } else if let Some((name, value)) = line.split_once('=') {
                    self.setting(name, value);
                }
            }
        }
    }
}

/// What of a secret setting's value may be said: `github.com=PAT:x` also as `PAT:x` and `x`.
fn words(value: &str) -> impl Iterator<Item = String> {
    value.split_whitespace().flat_map(|word| {
        let of = word.split_once('=').map(|(_, of)| of);
        let bare = of.and_then(|of| of.strip_prefix("PAT:").or(of.strip_prefix("OAuth2:")));
        [Some(word), of, bare].into_iter().flatten().map(str::to_owned)
    })
}

/// The parts of `name=value`, where that is no URL.
pub(super) fn option(value: &str) -> Option<(&str, &str)> {
    value.split_once('=').filter(|(name, _)| !name.contains(':'))
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
            ..Known::default()
        });
        let text = "ghp_abcdef s3cret-word hunter2-x https://o:other@h/";
        assert_eq!(cleaner.clean(text), "*** *** *** https://h/");
    }

    #[test]
    fn secrets_of_nixs_settings_go_by_value() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let netrc = |name: &str| {
            file(name, &format!("machine h password {name}")).to_str().unwrap().to_owned()
        };
        let [by_option, by_conf] = ["netrc-by-option", "netrc-by-conf"].map(netrc);
        fs::create_dir(dir.path().join("more")).unwrap();
        let conf = format!(
            "include more/a\n!include {}\n!include none\nnetrc-file = {by_conf} # of all\n\
             impure-env = A=of-env B=of-env-2#comment\ncores = ordinary\n",
            dir.path().join("c").display()
        );
        // They include each other.
        file("more/a", "!include b\ninclude ../nix.conf");
        file("more/b", "access-tokens = h=PAT:in-more");
        file("c", "extra-access-tokens=h=in-c==");
        let confs = vec![file("nix.conf", &conf)];
        let values = [
            &*format!("netrc-file={by_option}"),
            "impure-env=X=opt-env",
            "access-tokens=h=OAuth2:opt-token",
            "https://h/?token=ordinary",
        ];
        let values = values.map(str::to_owned).to_vec();
        let cleaner = Cleaner::of(&Known { confs, values, ..Known::default() });
        for secret in [
            "netrc-by-option",
            "netrc-by-conf",
            "of-env",
            "of-env-2",
            "in-more",
            "PAT:in-more",
            "in-c==",
            "opt-env",
            "opt-token",
        ] {
            let text = cleaner.clean(secret).into_owned();
            assert!(text.contains("***") && !text.contains('n'), "{secret}: {text}");
        }
        assert_eq!(cleaner.clean("ordinary #comment h=x"), "ordinary #comment h=x");
    }

    #[test]
    fn a_chain_of_includes_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..=MAX_CONFS {
            let text = format!("include {}\nx-token = secret-{n}-\n", n + 1);
            fs::write(dir.path().join(n.to_string()), text).unwrap();
        }
        let confs = vec![dir.path().join("0")];
        let cleaner = Cleaner::of(&Known { confs, ..Known::default() });
        let said = |n: usize| cleaner.clean(&format!("secret-{n}-")).into_owned();
        assert_eq!((said(MAX_CONFS - 1), said(MAX_CONFS)), ("***".into(), "secret-32-".into()));
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
                    secret-key-files = /etc/key\n!include more.conf\ncores = 3\nimpure-env = A=b";
        let wanted = "# x\naccess-tokens = ***\nextra-access-tokens= ***\n\
                      secret-key-files = /etc/key\n!include more.conf\ncores = 3\nimpure-env = ***\n";
        assert_eq!(nix_conf(text), wanted);
        assert!(is_secret("x-token") && !is_secret("netrc-file"));
    }

    #[test]
    fn passwords_of_urls_are_found() {
        assert_eq!(passwords("a=https://u:p:q@h:1/@x https://t@h file:///x:y@z"), ["p:q"]);
    }
}
