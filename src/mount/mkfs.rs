//! Makes ext4 in a file, by `mkfs.ext4`.

use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::MountError;
use super::failure::io_error;
use crate::trace;

const MKFS: &str = "mkfs.ext4";
/// Where it is on Debian, whose users have these in no `PATH`.
const SYSTEM: &str = ":/usr/sbin:/sbin";
/// It takes milliseconds, where the disk answers.
const LIMIT: Duration = Duration::from_mins(1);
/// Bytes of what it says.
const MAX_SAID: u64 = 4096;
/// Of ext4: what a store's many small files and links want, and nothing for a crash, since nobody reads
/// the file after one. `none` takes away what a distribution's mke2fs.conf adds.
const FEATURES: &str = "none,64bit,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,\
                        huge_file,large_file,sparse_super2,uninit_bg";
/// Nothing is kept for root, an inode per 8 KiB, no superblock has a copy, and the zeroes of a new
/// file are not written again.
const ARGS: [&str; 13] = [
    "-q",
    "-F",
    "-b",
    "4096",
    "-I",
    "256",
    "-i",
    "8192",
    "-m",
    "0",
    "-E",
    "lazy_itable_init=1,nodiscard,num_backup_sb=0",
    "-O",
];

/// Blocking, for a minute at most.
pub(super) fn ext4(image: &Path, search_path: &OsStr) -> Result<(), MountError> {
    let span = trace::below!("process", otel.name = MKFS, process.executable.name = MKFS);
    trace::blocking_phase(&span, || make(image, search_path))
}

fn make(image: &Path, search_path: &OsStr) -> Result<(), MountError> {
    let mut dirs = search_path.to_owned();
    dirs.push(SYSTEM);
    let mut child = Command::new(MKFS)
        .args(ARGS)
        .arg(FEATURES)
        .arg(image)
        .env_clear()
        .env("PATH", dirs)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            let hint = "it is in e2fsprogs".to_owned();
            io_error("run", MKFS.into(), e, Some(hint))
        })?;
    let failed = |e, said| io_error("make ext4 in", image.to_owned(), e, said);
    let stderr = child.stderr.take();
    let status = wait(child, LIMIT).map_err(|e| failed(e, None))?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    if let Some(stderr) = stderr {
        drop(stderr.take(MAX_SAID).read_to_end(&mut said)); // it failed in any case
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let errno = if said.contains("No space left") { Errno::NOSPC } else { Errno::IO };
    Err(failed(errno.into(), Some(said)))
}

/// Ends it if it takes too long.
fn wait(mut child: Child, limit: Duration) -> io::Result<ExitStatus> {
    match ends_within(&child, limit) {
        Ok(true) => child.wait(),
        ended => {
            child.kill()?;
            // One that the kernel keeps in a call ends later, and somebody has to hear of it.
            std::thread::spawn(move || child.wait());
            let late = || io::Error::new(io::ErrorKind::TimedOut, "mkfs.ext4 takes too long");
            Err(ended.err().unwrap_or_else(late))
        }
    }
}

fn ends_within(child: &Child, limit: Duration) -> io::Result<bool> {
    let handle = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    // Readable once it has ended: pidfd_open(2).
    let mut end = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut end, Some(&limit)))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_takes_too_long_is_ended() {
        let child = Command::new("true").spawn().unwrap();
        assert!(wait(child, LIMIT).unwrap().success());
        // It reads from us, and nothing comes.
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let (_input, pid) = (child.stdin.take(), Pid::from_child(&child));
        let handle = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let error = wait(child, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // It has ended, and nothing of it is left.
        let mut end = [PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN)];
        assert_eq!(retry_on_intr(|| poll(&mut end, None)).unwrap(), 1);
        while rustix::process::test_kill_process(pid).is_ok() {
            std::thread::yield_now();
        }
    }
}
