//! Credentials in URLs, for everything that is shown. Pure.

use std::borrow::Cow;
use std::ops::Range;

/// Stands for what is not shown.
pub const HIDDEN: &str = "***";
/// Taking one thing out may put another together, which the next pass takes out. Text that needs
/// more than this was made for it and isn't shown at all.
pub const MAX_PASSES: usize = 16;

/// `https://user:token@host/path?token=x` without what is before the `@` and without the values of
/// parameters that are called like secrets, wherever it is in `text`.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(text);
    for _ in 0..MAX_PASSES {
        match pass(&clean) {
            Some(next) => clean = Cow::Owned(next),
            None => return clean,
        }
    }
    Cow::Borrowed(HIDDEN)
}

/// `None` if there is nothing to take out.
fn pass(text: &str) -> Option<String> {
    let without = without_userinfo(text);
    let hidden = hide(&without, secret_parameters(&without));
    hidden.or(match without {
        Cow::Owned(without) => Some(without),
        Cow::Borrowed(_) => None,
    })
}

fn without_userinfo(text: &str) -> Cow<'_, str> {
    let mut clean = String::new();
    // What is in `clean` so far.
    let mut taken = 0;
    let mut at = 0;
    while let Some(scheme) = text[at..].find("://") {
        at += scheme + "://".len();
        let rest = &text[at..];
        let authority = &rest[..rest.find(ends_authority).unwrap_or(rest.len())];
        if let Some(userinfo) = authority.rfind('@') {
            clean += &text[taken..at];
            at += userinfo + 1;
            taken = at;
        }
    }
    if taken == 0 { Cow::Borrowed(text) } else { Cow::Owned(clean + &text[taken..]) }
}

/// Where a URL's authority begins that may go on behind the end of a text that was cut off.
pub fn open_authority(text: &str) -> Option<usize> {
    let at = text.rfind("://")? + "://".len();
    (!text[at..].contains(ends_authority)).then_some(at)
}

/// Not `'`: Nix and curl take it as a part of a password.
fn ends_authority(c: char) -> bool {
    matches!(c, '/' | '?' | '#' | '"' | '<' | '>' | '`') || c.is_whitespace() || c.is_control()
}

/// `text` with `***` in the place of `ranges`, which are sorted; ranges that overlap are one.
pub fn hide(text: &str, ranges: Vec<Range<usize>>) -> Option<String> {
    if ranges.is_empty() {
        return None;
    }
    let mut out = String::new();
    let mut end = 0;
    for range in ranges {
        if range.start >= end {
            out += &text[end..range.start];
            out += HIDDEN;
        }
        end = end.max(range.end);
    }
    Some(out + &text[end..])
}

/// The values of `?token=…`, `&X-Amz-Signature=…` and the like that are not hidden yet.
fn secret_parameters(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find(['?', '&', ';']) {
        from += at + 1;
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let name = &text[from..][..text[from..].find(|c| !is_part(c)).unwrap_or(text.len() - from)];
        let start = from + name.len() + 1;
        if !is_secret_name(name) || !text[from + name.len()..].starts_with('=') {
            continue;
        }
        let len = text[start..].find(ends_value).unwrap_or(text.len() - start);
        if !matches!(&text[start..start + len], "" | HIDDEN) {
            found.push(start..start + len);
        }
        from = start + len;
    }
    found
}

/// `access_token`, `private_token`, `X-Amz-Security-Token`, `client_secret`, `sig` and others.
fn is_secret_name(name: &str) -> bool {
    const ENDS: [&str; 9] = [
        "token",
        "password",
        "passwd",
        "secret",
        "signature",
        "credential",
        "credentials",
        "apikey",
        "api_key",
    ];
    let name = name.to_ascii_lowercase().replace('-', "_");
    name == "sig" || ENDS.iter().any(|end| name.ends_with(end))
}

fn ends_value(c: char) -> bool {
    matches!(c, '&' | '#' | '"' | '\'' | '<' | '>' | '`') || c.is_whitespace() || c.is_control()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn userinfo_goes_and_the_rest_stays() {
        for (text, clean) in [
            ("git+https://user:token@host/a@b?ref=x#y", "git+https://host/a@b?ref=x#y"),
            ("a://t@b c://u:v@d/e", "a://b c://d/e"),
            ("'https://u:p'q@h/': mail me@x", "'https://h/': mail me@x"),
            ("https://u:p@w@h", "https://h"),
            ("https://@h", "https://h"),
            ("ssh://git@[::1]:22", "ssh://[::1]:22"),
            ("a://b@c://d@e", "a://c://e"),
            // Found by fuzzing: a value that is hidden no longer ends what is before the `@`.
            ("x://a&token=?b=c&d@h", "x://h"),
            (
                "https://u@h/x.tar.gz?private_token=s&rev=1#a",
                "https://h/x.tar.gz?private_token=***&rev=1#a",
            ),
        ] {
            assert_eq!(without_credentials(text), clean);
        }
        let same =
            ["", "://", "a b@c", "https://h\nme@x", "git@h:p", "https://h/u:p@x", "\"a://b\"@"];
        for text in same {
            assert_eq!(without_credentials(text), text);
            assert!(matches!(without_credentials(text), Cow::Borrowed(_)));
        }
    }

    proptest! {
        #[test]
        fn twice_is_once(text in "([a@:/ é?'\"]|://|u:p@){0,12}") {
            let once = without_credentials(&text).into_owned();
            prop_assert_eq!(without_credentials(&once), &*once);
        }
    }
}
