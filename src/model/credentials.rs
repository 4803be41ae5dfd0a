//! Credentials in URLs, for everything that is shown. Pure.

use std::borrow::Cow;

/// `https://user:token@host/path` without what is before the `@`, wherever it is in `text`.
pub fn without_credentials(text: &str) -> Cow<'_, str> {
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

/// Not `'`: Nix and curl take it as a part of a password.
fn ends_authority(c: char) -> bool {
    matches!(c, '/' | '?' | '#' | '"' | '<' | '>' | '`') || c.is_whitespace() || c.is_control()
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
