//! The guard's command line, written by the driver and read by the guard. Pure.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Access, Bind, Guard, Jail, Limits, MAX_SETTINGS, capabilities};

const GRACE: &str = "--grace-ms";
const CONFIG: &str = "--config-bytes";
const INPUT: &str = "--input";
const DATA: &str = "--data-limit";
const PROCESSES: &str = "--processes";
const FILE: &str = "--file-limit";
const ORPHANS: &str = "--end-orphans";
const LISTENS: &str = "--listen";
const YIELDS: &str = "--yield";
const KEEPS: &str = "--keep";
const FILTERED: &str = "--filter";
const JAIL: &str = "--jail";
const UID: &str = "--uid";
const GID: &str = "--gid";
const HOME: &str = "--home";
const CHDIR: &str = "--chdir";
const TMP: &str = "--tmp-bytes";
const BINDS: [(&str, Access); 3] =
    [("--ro", Access::ReadOnly), ("--ro-try", Access::ReadOnlyIfThere), ("--rw", Access::Writable)];

pub(super) fn push(args: &mut Vec<OsString>, guard: &Guard) {
    if guard.ends_orphans {
        args.push(ORPHANS.into());
    }
    if guard.listens {
        args.push(LISTENS.into());
    }
    if guard.yields {
        args.push(YIELDS.into());
    }
    if guard.filtered {
        args.push(FILTERED.into());
    }
    let mut option = |name: &str, value: OsString| args.extend([name.into(), value]);
    let number = |n: u64| OsString::from(n.to_string());
    option(GRACE, number(u64::try_from(guard.grace.as_millis()).unwrap_or(u64::MAX)));
    option(CONFIG, number(guard.config_bytes as u64));
    if let Some(input) = &guard.input {
        option(INPUT, input.clone().into());
    }
    let Limits { data, processes, file } = guard.limits;
    for (name, limit) in [(DATA, data), (PROCESSES, processes), (FILE, file)] {
        if let Some(limit) = limit {
            option(name, number(limit));
        }
    }
    if let Some(keeps) = guard.keeps {
        option(KEEPS, capabilities::names(keeps).into());
    }
    let Some(jail) = &guard.jail else {
        return;
    };
    option(UID, number(jail.uid.into()));
    option(GID, number(jail.gid.into()));
    option(HOME, jail.home.clone().into());
    option(CHDIR, jail.chdir.clone().into());
    option(TMP, number(jail.tmp_bytes));
    args.push(JAIL.into());
    for bind in &jail.binds {
        let name = BINDS.iter().find(|(_, access)| *access == bind.access).map(|(name, _)| *name);
        args.push(name.unwrap_or_default().into());
        args.extend([bind.source.clone().into(), bind.target.clone().into()]);
    }
}

/// Options up to `--`, then the program and its arguments.
pub(super) fn parse(
    args: impl Iterator<Item = OsString>,
) -> Result<(Guard, Vec<OsString>), String> {
    let mut args = args;
    let mut guard = Guard::default();
    let mut is_jailed = false;
    let mut jail = Jail {
        uid: 0,
        gid: 0,
        home: "/".into(),
        chdir: "/".into(),
        tmp_bytes: 0,
        binds: Vec::new(),
    };
    while let Some(arg) = args.next() {
        let name = arg.to_string_lossy().into_owned();
        let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
        match &*name {
            "--" => break,
            GRACE => guard.grace = Duration::from_millis(number(&value()?)?),
            CONFIG => guard.config_bytes = number(&value()?)?,
            INPUT => guard.input = Some(value()?.into()),
            DATA => guard.limits.data = Some(number(&value()?)?),
            PROCESSES => guard.limits.processes = Some(number(&value()?)?),
            FILE => guard.limits.file = Some(number(&value()?)?),
            ORPHANS => guard.ends_orphans = true,
            LISTENS => guard.listens = true,
            YIELDS => guard.yields = true,
            FILTERED => guard.filtered = true,
            KEEPS => guard.keeps = Some(kept(&value()?)?),
            JAIL => is_jailed = true,
            UID => jail.uid = number(&value()?)?,
            GID => jail.gid = number(&value()?)?,
            HOME => jail.home = value()?.into(),
            CHDIR => jail.chdir = value()?.into(),
            TMP => jail.tmp_bytes = number(&value()?)?,
            other => {
                let access =
                    BINDS.iter().find(|(name, _)| *name == other).map(|(_, access)| *access);
                let access = access.ok_or_else(|| format!("unknown option {other:?}"))?;
                let (source, target) = (PathBuf::from(value()?), PathBuf::from(value()?));
                jail.binds.push(Bind { access, source, target });
            }
        }
    }
    let program: Vec<OsString> = args.collect();
    if program.is_empty() {
        return Err("no program after --".to_owned());
    }
    if guard.config_bytes > MAX_SETTINGS {
        return Err(format!("{CONFIG} is more than {MAX_SETTINGS}"));
    }
    if is_jailed {
        check(&jail)?;
        guard.jail = Some(jail);
    }
    Ok((guard, program))
}

fn number<T: FromStr>(text: &OsStr) -> Result<T, String> {
    let parsed = text.to_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| format!("{} is not a number", text.display()))
}

fn kept(text: &OsStr) -> Result<capabilities::CapabilitySet, String> {
    let parsed = text.to_str().and_then(capabilities::parse);
    parsed.ok_or_else(|| format!("{} are not names of capabilities", text.display()))
}

/// Root in a jail would not be jailed, and a target must not lead out of it.
fn check(jail: &Jail) -> Result<(), String> {
    if jail.uid == 0 || jail.gid == 0 {
        return Err("a jail needs a user and a group other than root".to_owned());
    }
    let targets = jail.binds.iter().map(|bind| &bind.target).chain([&jail.home, &jail.chdir]);
    let is_plain = |path: &PathBuf| {
        use std::path::Component::{Normal, RootDir};
        path.is_absolute() && path.components().all(|part| matches!(part, Normal(_) | RootDir))
    };
    for target in targets {
        if !is_plain(target) {
            return Err(format!("{} is not an absolute path without ..", target.display()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::jail::Limits;

    fn path() -> impl Strategy<Value = PathBuf> {
        "(/[a-z -]{1,8}){1,4}".prop_map(PathBuf::from)
    }

    fn bind() -> impl Strategy<Value = Bind> {
        (0..3usize, path(), path()).prop_map(|(access, source, target)| Bind {
            access: BINDS[access].1,
            source,
            target,
        })
    }

    fn jail() -> impl Strategy<Value = Jail> {
        let binds = prop::collection::vec(bind(), 0..5);
        (1..u32::MAX, 1..u32::MAX, path(), path(), any::<u64>(), binds).prop_map(
            |(uid, gid, home, chdir, tmp_bytes, binds)| Jail {
                uid,
                gid,
                home,
                chdir,
                tmp_bytes,
                binds,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            grace in 0..100_000u64, config_bytes in 0..MAX_SETTINGS,
            (ends_orphans, listens, yields, filtered) in any::<(bool, bool, bool, bool)>(),
            keeps in prop::option::of(any::<u64>()), input in prop::option::of(path()),
            (data, processes, file) in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
            jail in prop::option::of(jail()),
            args in prop::collection::vec("[a-z-]{0,8}", 0..4),
        ) {
            let grace = Duration::from_millis(grace);
            let limits = Limits { data, processes, file };
            let keeps = keeps.map(capabilities::tests::named);
            let guard = Guard {
                grace, config_bytes, input, ends_orphans, listens, yields, limits, keeps, filtered,
                jail,
            };
            let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
            let all = guard.arguments("/bin/x".as_ref(), &args);
            let (read, program) = parse(all.into_iter().skip(1)).unwrap();
            prop_assert_eq!(read, guard);
            prop_assert_eq!(&program[0], "/bin/x");
            prop_assert_eq!(&program[1..], args);
        }
    }

    #[test]
    fn what_would_be_no_jail_is_refused() {
        let refused = |args: &[&str]| parse(args.iter().map(Into::into)).unwrap_err();
        assert_eq!(
            refused(&["--jail", "--", "x"]),
            "a jail needs a user and a group other than root"
        );
        let jailed = ["--jail", "--uid", "1", "--gid", "1"];
        let with = |more: &[&str]| refused(&[&jailed, more, &["--", "x"]].concat());
        assert_eq!(with(&["--ro", "/a", "/b/../c"]), "/b/../c is not an absolute path without ..");
        assert_eq!(with(&["--chdir", "a"]), "a is not an absolute path without ..");
        assert_eq!(with(&["--uid", "-1"]), "-1 is not a number");
        assert_eq!(refused(&["--ro", "/a"]), "--ro needs a value");
        assert_eq!(refused(&["--help"]), "unknown option \"--help\"");
        assert_eq!(refused(&["--"]), "no program after --");
    }
}
