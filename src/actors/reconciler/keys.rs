//! From files of public keys to what sshd reads. Pure.

use std::collections::BTreeMap;

use crate::model::PublicKey;

/// Bytes of one file; a policy (`model/policy`) has no more either.
pub(super) const MAX_FILE: usize = 256 << 10;

/// The keys of one `*.pub` file; an error names the line.
pub(super) fn parse(text: &str) -> Result<Vec<PublicKey>, String> {
    let lines = text.lines().enumerate();
    let keys = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    keys.map(|(n, line)| {
        PublicKey::parse(line.trim_end()).map_err(|why| format!("line {}: {why}", n + 1))
    })
    .collect()
}

/// What was read of each file; `Err`: it can't be used, and why.
pub(super) type Read = BTreeMap<String, Result<Vec<PublicKey>, String>>;

/// The keys that count: a file that can't be used keeps those that it had.
pub(super) fn merge(
    good: &BTreeMap<String, Vec<PublicKey>>,
    read: &Read,
) -> BTreeMap<String, Vec<PublicKey>> {
    let mut merged = BTreeMap::new();
    for (file, keys) in read {
        let kept = match keys {
            Ok(keys) => keys.clone(),
            Err(_) => good.get(file).cloned().unwrap_or_default(),
        };
        merged.insert(file.clone(), kept);
    }
    merged
}

/// `restrict` forbids all but the one command that sshd forces (sshd(8)). A key in two files is one.
pub(super) fn render(files: &BTreeMap<String, Vec<PublicKey>>) -> String {
    let mut seen = std::collections::BTreeSet::new();
    let each = files.values().flatten().filter(|key| seen.insert(*key));
    each.fold(String::new(), |text, key| text + "restrict " + &key.to_string() + "\n")
}

/// A file of public keys, as the operator has written it: sshd lets in those that are in it, for nothing but its
/// one command.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let text = crate::fuzz::text(data);
    let keys = match parse(&text) {
        Ok(keys) => keys,
        Err(why) => {
            assert!(why.starts_with("line "), "{why}");
            return crate::fuzz::refusal(&why);
        }
    };
    let shown = render(&[("a".to_owned(), keys.clone()), ("b".to_owned(), keys.clone())].into());
    let lines = shown.lines().map(|line| line.strip_prefix("restrict ").expect("what forbids"));
    let lines: Vec<_> = lines.collect();
    assert!(lines.iter().all(|line| line.split(' ').count() == 2 && text.contains(line)));
    assert!(!shown.replace('\n', "").contains(char::is_control), "{shown:?}");
    let mut again = parse(&lines.join("\n")).expect("what it wrote");
    let mut once = keys;
    once.sort_unstable();
    once.dedup();
    again.sort_unstable();
    assert_eq!(again, once);
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMZ3PzUgQvNUBcQAMzvpdYYDXKHoxGWYSqK/dLtTN1fh";
    const B: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPZ3PzUgQvNUBcQAMzvpdYYDXKHoxGWYSqK/dLtTN1fh";

    fn read(files: &[(&str, &str)]) -> Read {
        files.iter().map(|(name, text)| ((*name).to_owned(), parse(text))).collect()
    }

    #[test]
    fn a_bad_file_keeps_what_it_had_and_the_others_go_on() {
        let first = merge(&BTreeMap::new(), &read(&[("a", A), ("b", B)]));
        assert_eq!(render(&first), format!("restrict {A}\nrestrict {B}\n"));
        let both = read(&[("a", "nonsense"), ("b", &format!("# of a laptop\n\n{A} me\n"))]);
        assert!(both["a"].as_ref().unwrap_err().starts_with("line 1: "));
        let second = merge(&first, &both);
        assert_eq!(render(&second), format!("restrict {A}\n"));
        // Gone is gone.
        let third = merge(&second, &read(&[("b", B)]));
        assert_eq!(render(&third), format!("restrict {B}\n"));
        assert_eq!(render(&merge(&third, &read(&[("c", "nonsense")]))), "");
    }
}
