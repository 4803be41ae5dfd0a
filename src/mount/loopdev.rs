//! Loop devices: a file as a block device for as long as somebody has the device open or mounted.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::fs::{CWD, Dev, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;

use super::MountError;
use super::failure::{failed, io_error};
use super::sys;

use crate::lock::lock;

const CONTROL: &str = "/dev/loop-control";
/// `MISC_MAJOR` and `LOOP_CTRL_MINOR` of the kernel.
const CONTROL_NUMBERS: (u32, u32) = (10, 237);
/// Other processes take free devices too.
const MAX_TRIES: usize = 64;
/// Bytes; a disk's own are never larger, so that its page cache can be passed by.
const BLOCK_SIZE: u32 = 4096;
/// Our own threads take turns: the free one is the same for all who ask at a time.
static ATTACHING: Mutex<()> = Mutex::new(());

/// A device that has its file. Dropped without having been mounted, it loses it.
pub(super) struct Loop {
    pub(super) path: PathBuf,
    _open: OwnedFd,
}

pub(super) fn attach(file: &File) -> Result<Loop, MountError> {
    let _turn = lock(&ATTACHING);
    let path = Path::new(CONTROL);
    let (major, minor) = CONTROL_NUMBERS;
    let control = open(path, FileType::CharacterDevice, || Ok(makedev(major, minor)))?;
    for _ in 0..MAX_TRIES {
        let number =
            sys::free_loop(control.as_fd()).map_err(failed("get a loop device from", path))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let open = open(&path, FileType::BlockDevice, || numbers(number))?;
        match sys::configure_loop(open.as_fd(), file.as_fd(), BLOCK_SIZE) {
            Ok(()) => return Ok(Loop { path, _open: open }),
            Err(Errno::BUSY) => {}
            Err(e) => return Err(failed("set up", &path)(e)),
        }
    }
    Err(failed("get a loop device from", path)(Errno::BUSY))
}

/// A container's `/dev` has what there was when it started; a missing node is made.
fn open(
    path: &Path,
    kind: FileType,
    numbers: impl FnOnce() -> Result<Dev, MountError>,
) -> Result<OwnedFd, MountError> {
    let open = || rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let failed = |verb, e: Errno| {
        let hint = "it takes the kernel's module loop, and a container has to be privileged";
        io_error(verb, path.to_owned(), e.into(), Some(hint.to_owned()))
    };
    match open() {
        Err(Errno::NOENT) => {}
        opened => return opened.map_err(|e| failed("open", e)),
    }
    let mode = Mode::from_raw_mode(0o600);
    match rustix::fs::mknodat(CWD, path, kind, mode, numbers()?) {
        Ok(()) | Err(Errno::EXIST) => open().map_err(|e| failed("open", e)),
        Err(e) => Err(failed("make the device node", e)),
    }
}

/// Of the device `number`; they are not always the same.
fn numbers(number: u32) -> Result<Dev, MountError> {
    let path = PathBuf::from(format!("/sys/block/loop{number}/dev"));
    let text = std::fs::read_to_string(&path).map_err(failed("read", &path))?;
    let parse = || {
        let (major, minor) = text.trim().split_once(':')?;
        Some(makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    parse().ok_or_else(|| failed("understand", &path)(Errno::INVAL))
}
