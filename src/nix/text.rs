//! Text of other programs, made fit for errors and logs. Pure.

use std::collections::VecDeque;

/// Bytes of one kept line.
pub(super) const MAX_LINE_BYTES: usize = 400;

/// `/nix/store/<hash>-hello.drv` → `hello`.
pub(super) fn base_name(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    let name = match base.as_bytes().get(32) {
        Some(b'-') => base.get(33..).unwrap_or(base),
        _ => base,
    };
    name.strip_suffix(".drv").unwrap_or(name)
}

/// `text` without terminal escapes and control characters other than newlines, cut at `max` bytes.
pub(super) fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if out.len() >= max {
            break;
        }
        match c {
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // A CSI sequence ends at its first letter.
                for c in chars.by_ref() {
                    if ('\u{40}'..='\u{7e}').contains(&c) {
                        break;
                    }
                }
            }
            '\n' | '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.truncate(out.floor_char_boundary(max));
    out
}

/// The first `max` bytes.
pub(super) fn first(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

/// A message of 2.20 and later has its trace first: `error:`, lines from `…` on, `error: …`.
pub(super) fn without_trace(text: &str) -> &str {
    let message = text.trim().trim_start_matches("error:").trim_start();
    if !message.starts_with('…') {
        return message;
    }
    let last = message.lines().find(|line| line.trim_start().starts_with("error:"));
    last.and_then(|line| message.find(line)).map_or(message, |at| message[at..].trim_start())
}

/// The oldest goes when there are `max` already.
pub(super) fn push_bounded<T>(list: &mut VecDeque<T>, item: T, max: usize) {
    if list.len() == max {
        list.pop_front();
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_and_names_are_short() {
        assert_eq!(clean("\u{1b}[31;1merror:\u{1b}[0m a\u{7}b", 100), "error: ab");
        assert_eq!(clean("\u{e9}\u{e9}\u{e9}", 3), "\u{e9}");
        let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-hello-2.12.drv";
        assert_eq!(base_name(path), "hello-2.12");
        assert_eq!(base_name(""), "");
    }
}
