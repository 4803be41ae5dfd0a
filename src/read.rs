//! Reads files, each no further than what it may hold: a file that somebody else has filled must not
//! fill our memory.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

/// Bytes of a file with a key, a number or the like.
pub const SMALL: usize = 64 << 10;

/// The whole file; an error if it has more than `max` bytes.
pub fn at_most(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    whole(File::open(path)?, max)
}

/// The same of what is open already.
pub fn whole(file: impl Read, max: usize) -> io::Result<Vec<u8>> {
    let text = beginning(file, max.saturating_add(1))?;
    if text.len() > max {
        let reason = format!("it has more than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(text)
}

/// The same of a text.
pub fn text_at_most(path: &Path, max: usize) -> io::Result<String> {
    let not_text = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8");
    String::from_utf8(at_most(path, max)?).map_err(not_text)
}

/// The file, or its first `max` bytes.
pub fn up_to(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    beginning(File::open(path)?, max)
}

/// What a file's JSON says; an error is one short line, where serde repeats all of a long string.
pub fn json<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| short(&error))
}

/// The beginning of what an error says, in one line.
pub fn short(error: &impl Display) -> String {
    const MOST: usize = 400;
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    error.to_string().chars().take(MOST).map(visible).collect()
}

fn beginning(file: impl Read, max: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(max as u64).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Access;

    #[test]
    fn what_is_too_large_is_an_error_and_never_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345678").unwrap();
        assert_eq!(text_at_most(&path, 8).unwrap(), "12345678");
        let error = at_most(&path, 7).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it has more than 7 bytes");
        assert_eq!(up_to(&path, 3).unwrap(), b"123");
        // All the space there is, in a file without a block.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(at_most(&path, 1 << 20).is_err());
    }

    #[test]
    fn an_error_is_one_short_line() {
        let text = serde_json::to_vec(&"x".repeat(100_000)).unwrap();
        assert!(json::<u32>(&text).unwrap_err().len() <= 400);
        // Found by fuzzing: serde names an unknown variant as it is.
        let error = json::<Access>(br#""a\nb\u001bc""#).unwrap_err();
        assert!(error.starts_with("unknown variant `a b c`"), "{error}");
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let absent = at_most(&dir.path().join("absent"), 8).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        fs::write(dir.path().join("latin"), b"\xe9").unwrap();
        assert!(text_at_most(&dir.path().join("latin"), 8).is_err());
    }
}
