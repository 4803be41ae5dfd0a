//! How many mounts there are of how many there may be. Asked now and then: the text of `mountinfo` is
//! megabytes on a full node, so the kernel is asked for their numbers alone where it can (Linux 6.8).

use std::fs;
use std::path::Path;

use super::failure::failed;
use super::{MountError, sys};

const LIMIT: &str = "/proc/sys/fs/mount-max";
const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

/// Of the driver's mount namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountCount {
    pub used: u64,
    pub limit: u64,
}

impl MountCount {
    /// Blocking.
    pub(super) fn now() -> Result<Self, MountError> {
        let path = Path::new(LIMIT);
        let text = fs::read_to_string(path).map_err(failed("read", path))?;
        let limit = text.trim().parse().map_err(|_| MountError::Metadata {
            path: path.to_owned(),
            reason: format!("it is no number: {text:?}"),
        })?;
        Ok(Self { used: sys::count_mounts().map_or_else(|_| by_text(), Ok)?, limit })
    }
}

fn by_text() -> Result<u64, MountError> {
    let path = Path::new(MOUNTINFO);
    let text = fs::read(path).map_err(failed("read", path))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that can't say it is asked for the text alone.
    #[test]
    fn both_ways_count_the_same() {
        let text = by_text().unwrap();
        assert!(text > 0);
        if let Ok(numbers) = sys::count_mounts() {
            assert_eq!(numbers, text);
        }
        let count = MountCount::now().unwrap();
        assert!(count.used > 0 && count.limit >= count.used, "{count:?}");
    }
}
