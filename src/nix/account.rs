//! Whether ssh can log in as an account.

use std::fs;
use std::path::Path;

use super::NixError;
use super::error::io_error;

/// sshd answers logins of an account that is missing or locked with "permission denied" alone.
pub(super) fn check(user: &str, passwd: &Path, shadow: &Path) -> Result<(), NixError> {
    let refuse =
        |detail: String| Err(NixError::Command { what: "preparing sshd".to_owned(), detail });
    let field = |path: &Path, n: usize| field(user, path, n);
    let Some(shell) = field(passwd, 6)? else {
        return refuse(format!(
            "there is no account {user:?}: useradd --uid 30998 --no-create-home --home-dir / --password '*' --shell /bin/sh {user}"
        ));
    };
    if shell.ends_with("/nologin") || shell.ends_with("/false") {
        return refuse(format!(
            "the shell of {user:?} is {shell}, which runs nothing: usermod --shell /bin/sh {user}"
        ));
    }
    if shadow.try_exists().unwrap_or(false)
        && field(shadow, 1)?.is_some_and(|password| password.starts_with('!'))
    {
        return refuse(format!(
            "the account {user:?} is locked: usermod --password '*' {user} leaves it without a \
             password that would be right"
        ));
    }
    Ok(())
}

pub(super) fn uid(user: &str, passwd: &Path) -> Result<u32, NixError> {
    let uid = field(user, passwd, 2)?.and_then(|uid| uid.parse().ok());
    let detail = || format!("{} has no number for {user:?}", passwd.display());
    uid.ok_or_else(|| NixError::Command { what: "preparing sshd".to_owned(), detail: detail() })
}

/// Of the user's line, if there is one.
fn field(user: &str, path: &Path, n: usize) -> Result<Option<String>, NixError> {
    let text = fs::read_to_string(path).map_err(|e| io_error("read", path, e))?;
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.first() == Some(&user));
    Ok(line.map(|fields| fields.get(n).copied().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_no_login_reaches_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let (passwd, shadow) = (dir.path().join("passwd"), dir.path().join("shadow"));
        fs::write(
            &passwd,
            "a:x:1:1::/:/usr/sbin/nologin\nb:x:2:2::/:/bin/sh\nc:x:3:3::/:/bin/sh\n",
        )
        .unwrap();
        fs::write(&shadow, "a:*:1\nb:!:1\nc:*:1\n").unwrap();
        let refusal = |user: &str| check(user, &passwd, &shadow).unwrap_err().to_string();
        assert!(refusal("a").contains("usermod --shell /bin/sh a"));
        assert!(refusal("b").contains("usermod --password '*' b"));
        assert!(refusal("d").contains("useradd --uid"));
        check("c", &passwd, &shadow).unwrap();
        assert_eq!(uid("c", &passwd).unwrap(), 3);
        assert!(uid("d", &passwd).is_err());
        fs::remove_file(&shadow).unwrap();
        check("b", &passwd, &shadow).unwrap();
    }
}
