//! Parses `/proc/thread-self/mountinfo`. Its cost grows with the number of mounts, so only the
//! removal of a view reads it, `detach` of a mount that no view on disk explains, and whatever takes
//! away or completes the mounts of a volume that shows its view in parts.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::MountError;
use super::failure::failed;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) id: u64,
    /// The directory of the file system that is shown.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) source: Vec<u8>,
}

/// The mounts of the calling thread's mount namespace.
pub(super) fn read() -> Result<Vec<Mount>, MountError> {
    let path = Path::new("/proc/thread-self/mountinfo");
    let text = fs::read(path).map_err(failed("read", path))?;
    text.split(|b| *b == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            // A line that is not understood might be the one that matters.
            parse(line).ok_or_else(|| MountError::Metadata {
                path: path.to_owned(),
                reason: format!("unexpected line {:?}", String::from_utf8_lossy(line)),
            })
        })
        .collect()
}

/// The mount points of this mount namespace.
pub fn points() -> Result<Vec<PathBuf>, MountError> {
    Ok(read()?.into_iter().map(|mount| mount.point).collect())
}

/// proc_pid_mountinfo(5): `id parent major:minor root point options [tag…] - type source super`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let root = unescape(fields.nth(2)?);
    let point = unescape(fields.next()?);
    fields.find(|f| *f == b"-")?;
    let source = unescape(fields.nth(1)?);
    Some(Mount {
        id,
        root: OsString::from_vec(root).into(),
        point: OsString::from_vec(point).into(),
        source,
    })
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        if let Some(byte) = octal {
            out.push(byte);
            rest = &tail[3..];
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

/// A line is one mount or none, and no name gets longer.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(data: &[u8]) {
    for line in data.split(|byte| *byte == b'\n') {
        let Some(mount) = parse(line) else { continue };
        let names =
            [mount.root.as_os_str().len(), mount.point.as_os_str().len(), mount.source.len()];
        assert!(names.iter().sum::<usize>() <= line.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_tags_and_escapes() {
        let line =
            br"36 35 98:0 /a\040b /mnt\134x rw,noatime shared:1 master:2 - ext4 /dev/r\011t rw";
        assert_eq!(
            parse(line).unwrap(),
            Mount {
                id: 36,
                root: "/a b".into(),
                point: "/mnt\\x".into(),
                source: b"/dev/r\tt".to_vec(),
            }
        );
        assert!(parse(b"36 35 98:0 / /mnt rw").is_none());
        assert!(parse(b"x 35 98:0 / /mnt rw - a b c").is_none());
        assert_eq!(unescape(br"a\9z\04"), br"a\9z\04");
    }

    #[test]
    fn reads_this_threads_own() {
        assert!(read().unwrap().iter().any(|m| m.point == Path::new("/")));
    }
}
