//! What Nix is set to, as `nix show-config --json` says it. Pure.

use serde::Deserialize;

use super::NixError;
use crate::model::{Announcement, Feature, System};
use crate::read::short;

/// What matters at the start.
#[derive(Deserialize)]
pub(super) struct Settings {
    pub(super) sandbox: Setting,
    #[serde(rename = "trusted-users")]
    pub(super) trusted_users: Setting,
    #[serde(rename = "allow-new-privileges")]
    pub(super) new_privileges: Setting,
    #[serde(rename = "build-users-group")]
    pub(super) build_users: Setting,
    #[serde(rename = "post-build-hook")]
    pub(super) hook: Setting,
}

#[derive(Deserialize)]
pub(super) struct Setting {
    value: serde_json::Value,
}

impl Settings {
    pub(super) fn parse(json: &[u8]) -> Result<Self, NixError> {
        serde_json::from_slice(json).map_err(|err| NixError::Command {
            what: "nix show-config --json".to_owned(),
            detail: format!("it printed what is not understood: {}", short(&err)),
        })
    }
}

impl Setting {
    pub(super) fn is(&self, word: &str) -> bool {
        self.value == word
    }

    pub(super) fn is_on(&self) -> bool {
        self.value == true || self.is("true")
    }

    pub(super) fn is_off(&self) -> bool {
        self.value == false || self.is("false")
    }

    /// Empty where it is no text.
    pub(super) fn text(&self) -> &str {
        self.value.as_str().unwrap_or_default()
    }

    /// Whether it names the user or everybody, such as `root * @wheel`, as a list or as text.
    pub(super) fn names_user(&self, uid: &str) -> bool {
        words(&self.value).into_iter().any(|user| user == "*" || user == uid)
    }
}

/// As many jobs as `max-jobs` has, if somebody has set it, else as there are cores; no more than there are
/// users to build as, since another would wait.
pub(super) fn announcement(json: &[u8], groups: &str) -> Announcement {
    let Ok(shown) = serde_json::from_slice::<serde_json::Value>(json) else {
        return Announcement::default();
    };
    let words = |name: &str| words(&shown[name]["value"]);
    let systems = words("system").into_iter().chain(words("extra-platforms"));
    let max_jobs = &shown["max-jobs"];
    let set = (max_jobs["value"] != max_jobs["defaultValue"]).then(|| max_jobs["value"].as_u64());
    let cores = || std::thread::available_parallelism().ok().map(|n| n.get() as u64);
    let group = shown["build-users-group"]["value"].as_str().unwrap_or_default();
    let users = users_of(groups, group).unwrap_or(u64::MAX);
    let most = users.min(Announcement::MAX_JOBS.into());
    let jobs = set.flatten().or_else(cores).map(|jobs| jobs.min(most));
    Announcement {
        max_jobs: jobs.and_then(|jobs| u32::try_from(jobs).ok()?.try_into().ok()),
        systems: systems.filter_map(|system| System::parse(&system)).collect(),
        features: words("system-features").iter().filter_map(|f| Feature::parse(f)).collect(),
    }
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

/// Groups, an empty line, and the settings. A node says no more than its groups and settings do.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let end = data.windows(2).position(|two| two == b"\n\n");
    let (groups, json) = end.map_or((&[][..], data), |end| (&data[..end], &data[end + 2..]));
    let groups = crate::fuzz::text(groups);
    let said = announcement(json, &groups);
    crate::fuzz::announced(&said);
    let settings = match Settings::parse(json) {
        Ok(settings) => settings,
        Err(error) => return crate::fuzz::refusal(&error),
    };
    let members = users_of(&groups, settings.build_users.text());
    let jobs = said.max_jobs.map_or(0, |jobs| u64::from(jobs.get()));
    assert!(members.is_none_or(|members| jobs <= members), "{jobs} jobs of {members:?}");
    let Settings { sandbox, trusted_users, new_privileges, .. } = &settings;
    for setting in [sandbox, new_privileges] {
        assert!(!(setting.is_on() && setting.is_off()));
    }
    // Whoever else is named, and in either form.
    let more = [words(&trusted_users.value), vec!["*".to_owned()]].concat();
    assert!(Setting { value: more.join(" ").into() }.names_user("30999"));
    assert!(Setting { value: more.into() }.names_user("30999"));
    let none = trusted_users.value.to_string();
    assert!(!trusted_users.names_user("30999") || none.contains('*') || none.contains("30999"));
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
        // Found by fuzzing: what nobody believes is not said, and nothing of what can't be read.
        assert_eq!(jobs(20_000, ""), Announcement::MAX_JOBS);
        assert_eq!(announcement(b"{\"system\": \"\xff\"}", users), Announcement::default());
        assert_eq!(users_of("nixbld2:x:1:a\nnixbld:x:2:\n", "nixbld"), Some(0));
    }

    #[test]
    fn everybody_is_found_among_the_trusted() {
        let is =
            |json: &str| Setting { value: serde_json::from_str(json).unwrap() }.names_user("30999");
        for json in [r#"["root","*"]"#, r#""root *""#, r#"["30999"]"#] {
            assert!(is(json), "{json}");
        }
        for json in [r#"["root","@wheel"]"#, r#""root""#, "[]", "null"] {
            assert!(!is(json), "{json}");
        }
    }
}
