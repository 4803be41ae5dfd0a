//! Takes secrets out of text that is shown: errors, logs, Events. Pure.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use crate::model::{HIDDEN, MAX_PASSES, hide, open_authority, without_credentials};

use super::text;

/// Bytes. A shorter value is in ordinary words, and no secret.
const MIN_SECRET: usize = 6;

/// Knows the secrets of one request, or of the node.
#[derive(Clone, Default)]
pub struct Redactor {
    secrets: Vec<String>,
}

impl Redactor {
    /// `secrets` are values such as those of [`secrets_of_access_tokens`].
    pub fn new(secrets: impl IntoIterator<Item = String>) -> Self {
        let forms = secrets.into_iter().flat_map(|secret| forms(&secret));
        Self { secrets: forms.filter(|secret| secret.len() >= MIN_SECRET).collect() }
    }

    /// For people: `text` without terminal escapes and without what [`clean`](Self::clean) takes out, cut
    /// at `max` bytes. In this order: an escape within a secret would hide it, and of one that is cut the
    /// rest is not known for one.
    pub(super) fn shown(&self, text: &str, max: usize) -> String {
        let mut shown = self.clean(&text::clean(text, usize::MAX)).into_owned();
        shown.truncate(shown.floor_char_boundary(max));
        shown
    }

    /// The same of a text that may have been cut off.
    pub(super) fn shown_cut(&self, text: &str, is_cut: bool, max: usize) -> String {
        let whole = text::clean(text, usize::MAX);
        self.shown(if is_cut { self.without_begun(&whole) } else { &whole }, max)
    }

    /// The same in one line.
    pub(super) fn shown_line(&self, text: &str, max: usize) -> String {
        self.shown(text, max).replace(['\n', '\t'], " ")
    }

    /// Of a text that was cut off, without what may be the first part of a secret or of a user name.
    pub(super) fn without_begun<'a>(&self, text: &'a str) -> &'a str {
        let begun = |secret: &String| {
            let mut ends = text.len().saturating_sub(secret.len())..text.len();
            ends.find(|at| text.get(*at..).is_some_and(|end| secret.starts_with(end)))
        };
        let ends = self.secrets.iter().filter_map(begun).chain(open_authority(text));
        &text[..ends.min().unwrap_or(text.len())]
    }

    /// `text` without the secrets, without user names and passwords in URLs, and without the values
    /// of query parameters that are called like secrets.
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        for _ in 0..MAX_PASSES {
            match self.pass(&clean) {
                Some(next) => clean = Cow::Owned(next),
                None => return clean,
            }
        }
        Cow::Borrowed(HIDDEN)
    }

    /// `None` if there is nothing to take out.
    fn pass(&self, text: &str) -> Option<String> {
        let without_secrets = hide(text, self.found_in(text));
        let text = without_secrets.as_deref().unwrap_or(text);
        match without_credentials(text) {
            Cow::Owned(text) => Some(text),
            Cow::Borrowed(_) => without_secrets,
        }
    }

    /// Where secrets are, also those that overlap: no part of one is left.
    fn found_in(&self, text: &str) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        for secret in &self.secrets {
            let mut from = 0;
            while let Some(at) = text[from..].find(secret.as_str()) {
                found.push(from + at..from + at + secret.len());
                let first = secret.chars().next().map_or(1, char::len_utf8);
                from += at + first;
            }
        }
        found.sort_unstable_by_key(|range| range.start);
        found
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} secrets)", self.secrets.len())
    }
}

/// A secret as it may be said: as it is, in lines, and as it is shown; each also without the space around it, which
/// may be lost.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    if secret.contains(char::is_control) {
        forms.extend(secret.split(char::is_control).map(str::to_owned));
        forms.push(text::clean(secret, usize::MAX));
    }
    let trimmed: Vec<_> = forms.iter().map(|form| form.trim().to_owned()).collect();
    forms.extend(trimmed);
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// The pairs of `github.com=ghp_x gitlab.com=PAT:abc`, Nix's setting `access-tokens`: its value alone,
/// or a nix.conf with it.
pub fn access_tokens(text: &str) -> Vec<&str> {
    let mut pairs = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let end = line.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let value = match (name, rest.trim_start().strip_prefix('=')) {
            ("access-tokens" | "extra-access-tokens", Some(value)) => value,
            _ if line.split_whitespace().nth(1) == Some("=") => continue,
            _ => line,
        };
        pairs.extend(value.split_whitespace());
    }
    pairs
}

/// The tokens of [`access_tokens`].
pub fn secrets_of_access_tokens(text: &str) -> Vec<String> {
    let pairs = access_tokens(text).into_iter();
    let tokens = pairs.filter_map(|pair| pair.split_once('=')).map(|(_, token)| token);
    // GitLab's kinds of token.
    let bare = tokens.map(|token| match token.split_once(':') {
        Some(("PAT" | "OAuth2", token)) => token,
        _ => token,
    });
    bare.filter(|token| !token.is_empty()).map(str::to_owned).collect()
}

/// The passwords of a netrc file, with curl's quotes.
pub fn secrets_of_netrc(text: &str) -> Vec<String> {
    let mut secrets = Vec::new();
    let mut rest = text;
    while let Some((word, after)) = netrc_word(rest) {
        rest = after;
        match word.as_str() {
            "machine" | "login" | "account" => {
                rest = netrc_word(after).map_or("", |(_, rest)| rest);
            }
            "password" => {
                let Some((secret, after)) = netrc_word(after) else { break };
                secrets.push(secret);
                rest = after;
            }
            comment if comment.starts_with('#') => {
                rest = rest.split_once('\n').map_or("", |(_, next)| next);
            }
            _ => {}
        }
    }
    secrets
}

/// The first word of `text`, and what follows it.
fn netrc_word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut word = String::new();
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => word.extend(chars.next().map(|escaped| match escaped {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                other => other,
            })),
            c => word.push(c),
        }
    }
    Some((word, chars.as_str()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redactor(secrets: &[&str]) -> Redactor {
        Redactor::new(secrets.iter().map(|secret| (*secret).to_owned()))
    }

    #[test]
    fn configured_secrets_go_whole() {
        let redactor = redactor(&["ghp_abc", "ghp_abcdef", "defghi", "short", "aXbaXb", ""]);
        for (text, clean) in [
            ("token ghp_abc.", "token ***."),
            ("ghp_abcdef ghp_abc", "*** ***"),
            // Secrets that overlap leave no part.
            ("<ghp_abcdefghi>", "<***>"),
            ("<aXbaXbaXb>", "<***>"),
            ("ghp_abcghp_abc", "******"),
            ("a short one", "a short one"),
        ] {
            assert_eq!(redactor.clean(text), clean);
        }
        assert_eq!(format!("{redactor:?}"), "Redactor(4 secrets)");
    }

    #[test]
    fn urls_and_parameters_need_no_configuration() {
        let redactor = Redactor::default();
        for (text, clean) in [
            ("'git+https://oauth2:x@h/r?ref=m'", "'git+https://h/r?ref=m'"),
            ("'https://h/f?token=x&rev=1': 404", "'https://h/f?token=***&rev=1': 404"),
            ("github:o/r?dir=a&access_token=x#y", "github:o/r?dir=a&access_token=***#y"),
            (
                "?X-Amz-Credential=a/b&X-Amz-Signature=0f",
                "?X-Amz-Credential=***&X-Amz-Signature=***",
            ),
            ("?a=1;PRIVATE-TOKEN=x\nnext", "?a=1;PRIVATE-TOKEN=***\nnext"),
            ("?sv=1&sig=a%2Fb%3D \"?password=x\"", "?sv=1&sig=*** \"?password=***\""),
            ("https://u:p@h?client_secret=a=b", "https://h?client_secret=***"),
        ] {
            assert_eq!(redactor.clean(text), clean);
        }
        for same in [
            "",
            "error: token = x; see https://h/a@b?ref=token&design=1",
            "s3://b?region=eu&secret-key=/etc/k&token=&sig=***",
            "?tokens=3&sign=x a?token b;c & d",
        ] {
            assert!(matches!(redactor.clean(same), Cow::Borrowed(text) if text == same), "{same}");
        }
    }

    #[test]
    fn what_taking_out_puts_together_goes_too() {
        // Between the parts of one, another was; stars alone; parts around a user name.
        assert_eq!(redactor(&["ab***yz", "secret"]).clean("absecretyz"), "***");
        assert_eq!(redactor(&["******", "secret"]).clean("secretsecret"), "***");
        assert_eq!(redactor(&["://host"]).clean("x://u@host"), "x***");
        // A pass each: more than anything honest needs.
        let nested = (0..40).fold("secret".to_owned(), |inner, _| format!("ab{inner}yz"));
        assert_eq!(redactor(&["ab***yz", "secret"]).clean(&format!("x {nested}")), "***");
    }

    #[test]
    fn a_secret_with_control_characters_is_known_as_it_is_shown() {
        let redactor = redactor(&["pass\u{7}word", "first-line\nsecond-line"]);
        for text in ["password", "pass\u{7}word", "a first-line", "second-line!"] {
            assert!(redactor.shown(text, 100).contains(HIDDEN), "{text:?}");
        }
        // A user name ends at a control character, which is not shown.
        assert_eq!(redactor.shown("https://u:p\u{7}q@h/", 100), "https://h/");
    }

    #[test]
    fn the_space_around_a_secret_may_be_lost() {
        let redactor = redactor(&[" ghp_abc", "def\u{0}ghi \t"]);
        assert_eq!(redactor.clean("ghp_abc: ghp_abc, defghi"), "***:***, ***");
    }

    #[test]
    fn of_a_text_that_was_cut_off_no_secret_begins_at_its_end() {
        let redactor = redactor(&["ghp_abcdef", "abcabc"]);
        for (text, kept) in [
            ("token ghp_abc", "token "),
            ("token g", "token "),
            ("abca", ""),
            ("see https://user:pass", "see https://"),
            ("see https://host/pass", "see https://host/pass"),
            ("nothing else", "nothing else"),
        ] {
            assert_eq!(redactor.without_begun(text), kept);
        }
    }

    #[test]
    fn access_tokens_are_found_in_values_and_files() {
        let value = " github.com=ghp_x  gitlab.com=PAT:abc g.org/a=OAuth2:d=e other=a:b bad= worse";
        assert_eq!(secrets_of_access_tokens(value), ["ghp_x", "abc", "d=e", "a:b"]);
        let file = "# access-tokens = no=no\nsandbox = a=b\naccess-tokens = github.com=x # y=z\n\
                    !include f\nextra-access-tokens = h=y";
        assert_eq!(secrets_of_access_tokens(file), ["x", "y"]);
    }

    #[test]
    fn passwords_are_found_in_netrc() {
        let file = "machine a login u password p1\n# password no\nmachine b\n  login password\n\
                    password\n\t#2 default login x password \"a \\\"b\\\\\" \npassword";
        assert_eq!(secrets_of_netrc(file), ["p1", "#2", "a \"b\\"]);
        let file = "machine a login u account x #no password y\npassword \"open";
        assert_eq!(secrets_of_netrc(file), ["open"]);
        assert!(secrets_of_netrc("#").is_empty() && secrets_of_netrc("login").is_empty());
    }

    proptest! {
        #[test]
        fn no_secret_is_left_and_twice_is_once(
            secrets in prop::collection::vec("[ab*=]{1,9}|\\?token=[ab]{1,4}|(é|://|@|a){3,6}", 0..5),
            text in "([ab*=@/ é]|aba|bab|://|u@|[?&]token=|;sig=){0,30}",
        ) {
            let redactor = Redactor::new(secrets.clone());
            let clean = redactor.clean(&text).into_owned();
            for secret in secrets.iter().filter(|secret| secret.len() >= MIN_SECRET) {
                prop_assert!(!clean.contains(secret.as_str()), "{:?} in {:?}", secret, clean);
            }
            prop_assert_eq!(redactor.clean(&clean), &*clean);
            if clean == text {
                prop_assert!(matches!(redactor.clean(&text), Cow::Borrowed(_)));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>(), secrets in prop::collection::vec(any::<String>(), 0..4)) {
            let _ = Redactor::new(secrets).clean(&text);
            let _ = (secrets_of_access_tokens(&text), secrets_of_netrc(&text));
        }

        #[test]
        fn secrets_of_files_are_hidden(token in "[!-~]{6,20}", host in "[a-z]{1,8}\\.[a-z]{2,3}") {
            prop_assume!(!token.contains(['#', '"']) && !token.starts_with("PAT:") && !token.starts_with("OAuth2:"));
            let conf = format!("access-tokens = x=y {host}={token}");
            prop_assert_eq!(secrets_of_access_tokens(&conf), ["y", &token]);
            let netrc = format!("machine {host}\n\tpassword {token}\n");
            prop_assert_eq!(secrets_of_netrc(&netrc), [token.as_str()]);
            let clean = Redactor::new([token.clone()]).clean(&format!("it said {token}!")).into_owned();
            prop_assert!(!clean.contains(&token));
        }
    }
}
