//! Opens target paths. A target's parents belong to somebody else, who may swap them for symlinks
//! at any time: the parent is resolved once, by the kernel, below an allowed root and without
//! following a link, and everything after that goes through its descriptor.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::MountError;
use super::failure::{failed, io_error};
use super::sys;
use crate::model::TargetPath;

/// `openat2` gives EAGAIN while a rename or a mount happens anywhere on the machine.
const MAX_TRIES: usize = 128;
const DIR: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Mounted over; the mode matters to nobody but a lister of the parent.
const TARGET_MODE: Mode = Mode::from_raw_mode(0o750);

/// An allowed directory, as it was named and without symlinks.
#[derive(Debug)]
struct Root {
    given: PathBuf,
    canonical: PathBuf,
}

/// The directories below which targets may lie.
#[derive(Debug)]
pub(super) struct Roots(Vec<Root>);

impl Roots {
    pub(super) fn new(dirs: &[PathBuf]) -> Result<Self, MountError> {
        dirs.iter()
            .map(|given| {
                let canonical =
                    given.canonicalize().map_err(failed("resolve the target root", given))?;
                Ok(Root { given: given.clone(), canonical })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Resolves the target's parent.
    pub(super) fn open<'a>(&self, target: &'a TargetPath) -> Result<Target<'a>, MountError> {
        let (root, rest) = self.find(target)?;
        // Opened anew each time: a descriptor from the start would miss what is mounted over the
        // root later.
        let base = open_no_links(CWD, &root.canonical, ResolveFlags::empty())
            .map_err(failed("open the target root", &root.canonical))?;
        let below = if rest.as_os_str().is_empty() {
            Ok(base)
        } else {
            open_no_links(&base, rest, ResolveFlags::BENEATH)
                .map_err(|e| explain(e, target, &root.canonical, rest))
        };
        below.map(|parent| Target { path: target, parent })
    }

    /// The root that holds the target, and the way from there to the target's parent.
    fn find<'a, 'b>(&'a self, target: &'b TargetPath) -> Result<(&'a Root, &'b Path), MountError> {
        self.0
            .iter()
            .find_map(|root| {
                let below = |dir: &Path| target.parent().strip_prefix(dir).ok();
                Some((root, below(&root.given).or_else(|| below(&root.canonical))?))
            })
            .ok_or_else(|| MountError::NotAllowed {
                target: target.clone(),
                allowed: self
                    .0
                    .iter()
                    .map(|r| r.given.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }
}

/// A target whose parent is held open.
pub(super) struct Target<'a> {
    pub(super) path: &'a TargetPath,
    parent: OwnedFd,
}

impl Target<'_> {
    /// Makes the target's directory; `true` if it was not there.
    pub(super) fn make_dir(&self) -> Result<bool, MountError> {
        match rustix::fs::mkdirat(&self.parent, self.path.name(), TARGET_MODE) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(failed("make the directory", self.path.as_path())(e)),
        }
    }

    /// The target's directory as it is seen now, with what is mounted on it; `None` if absent.
    pub(super) fn directory(&self) -> Result<Option<OwnedFd>, MountError> {
        let name = Path::new(self.path.name());
        match open_no_links(&self.parent, name, ResolveFlags::BENEATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::XDEV) => Err(self.symlink()),
            Err(Errno::NOTDIR) if self.is_link() => Err(self.symlink()),
            Err(Errno::NOTDIR) => Err(MountError::NotADirectory {
                target: self.path.clone(),
                at: self.path.as_path().to_owned(),
            }),
            Err(e) => Err(failed("open", self.path.as_path())(e)),
        }
    }

    fn symlink(&self) -> MountError {
        MountError::Symlink { target: self.path.clone(), at: self.path.as_path().to_owned() }
    }

    fn is_link(&self) -> bool {
        rustix::fs::statat(
            &self.parent,
            self.path.name(),
            AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT,
        )
        .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Symlink)
    }

    /// Takes the topmost mount off the target.
    pub(super) fn unmount(&self) -> Result<(), MountError> {
        // umount has no *at form; through the descriptor no parent can be swapped.
        let through = PathBuf::from(format!("/proc/self/fd/{}", self.parent.as_raw_fd()))
            .join(self.path.name());
        match sys::unmount(&through) {
            Ok(()) => Ok(()),
            Err(Errno::BUSY) => Err(MountError::Busy { target: self.path.clone() }),
            Err(e) => Err(failed("unmount", self.path.as_path())(e)),
        }
    }

    /// Removes the target's directory unless there is something in it.
    pub(super) fn remove_dir(&self) -> Result<(), MountError> {
        match rustix::fs::unlinkat(&self.parent, self.path.name(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
            Err(e) => Err(failed("remove the directory", self.path.as_path())(e)),
        }
    }
}

/// Opens a directory for its place only; no component may be a link.
pub(super) fn open_no_links(
    base: impl rustix::fd::AsFd,
    path: &Path,
    more: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = more | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match rustix::fs::openat2(&base, path, DIR, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
            result => return result,
        }
    }
}

/// What is wrong with the parent, by what the caller can do about it.
fn explain(e: Errno, target: &TargetPath, root: &Path, rest: &Path) -> MountError {
    let target = target.clone();
    match e {
        Errno::NOENT => MountError::NoParent { target },
        Errno::LOOP | Errno::XDEV => {
            MountError::Symlink { at: first_not_directory(root, rest), target }
        }
        Errno::NOTDIR => {
            let at = first_not_directory(root, rest);
            let is_link = std::fs::symlink_metadata(&at).is_ok_and(|m| m.is_symlink());
            if is_link {
                MountError::Symlink { target, at }
            } else {
                MountError::NotADirectory { target, at }
            }
        }
        e => io_error("open the parent of", target.as_path().to_owned(), e.into(), None),
    }
}

/// For the message only: the first component that is a symlink or no directory, or the whole parent.
fn first_not_directory(root: &Path, rest: &Path) -> PathBuf {
    let mut at = root.to_owned();
    for component in rest.components() {
        at.push(component);
        if std::fs::symlink_metadata(&at).is_ok_and(|m| !m.is_dir()) {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn target(path: &Path) -> TargetPath {
        TargetPath::parse("target_path", path.to_str().unwrap()).unwrap()
    }

    #[test]
    fn every_way_out_is_refused_by_its_name() {
        let tmp = tempfile::tempdir().unwrap();
        let root = tmp.path().canonicalize().unwrap().join("pods");
        std::fs::create_dir_all(root.join("good")).unwrap();
        std::fs::create_dir_all(root.join("real/deeper")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        symlink("/etc", root.join("absolute")).unwrap();
        symlink("real", root.join("inside")).unwrap();
        symlink("../..", root.join("up")).unwrap();
        let roots = Roots::new(std::slice::from_ref(&root)).unwrap();
        let open = |rel: &str| roots.open(&target(&root.join(rel))).map(|_| ());

        assert!(open("good/mount").is_ok());
        assert!(open("mount").is_ok());
        for link in ["absolute", "inside", "up"] {
            let e = open(&format!("{link}/mount")).unwrap_err();
            assert!(matches!(e, MountError::Symlink { .. }), "{e}");
            // Refused as the last component of the parent, and on the way.
            let e = open(&format!("{link}/deeper/mount")).unwrap_err();
            let at = root.join(link);
            assert!(matches!(&e, MountError::Symlink { at: a, .. } if *a == at), "{e}");
        }
        assert!(matches!(open("none/mount"), Err(MountError::NoParent { .. })));
        assert!(matches!(open("file/mount"), Err(MountError::NotADirectory { .. })));
        for outside in [tmp.path().join("other"), root.clone(), tmp.path().join("podsx/m")] {
            let e = roots.open(&target(&outside)).map(|_| ()).unwrap_err();
            assert!(matches!(e, MountError::NotAllowed { .. }), "{e}");
        }
    }

    #[test]
    fn the_last_component_is_never_followed() {
        let tmp = tempfile::tempdir().unwrap();
        symlink("/etc", tmp.path().join("link")).unwrap();
        std::fs::write(tmp.path().join("file"), "").unwrap();
        let roots = Roots::new(&[PathBuf::from("/")]).unwrap();
        let tmp = tmp.path().canonicalize().unwrap();
        let link = target(&tmp.join("link"));
        let e = roots.open(&link).unwrap().directory().unwrap_err();
        assert!(matches!(e, MountError::Symlink { .. }), "{e}");
        let file = target(&tmp.join("file"));
        let e = roots.open(&file).unwrap().directory().unwrap_err();
        assert!(matches!(e, MountError::NotADirectory { .. }), "{e}");
        let none = target(&tmp.join("none"));
        assert!(roots.open(&none).unwrap().directory().unwrap().is_none());
        assert!(roots.open(&none).unwrap().make_dir().unwrap());
        assert!(!roots.open(&none).unwrap().make_dir().unwrap());
        roots.open(&none).unwrap().remove_dir().unwrap();
        roots.open(&none).unwrap().remove_dir().unwrap();
    }

    #[test]
    fn a_root_that_is_a_symlink_is_resolved_once() {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(tmp.path().join("data/pods")).unwrap();
        symlink("data", tmp.path().join("kubelet")).unwrap();
        let given = tmp.path().join("kubelet");
        let roots = Roots::new(std::slice::from_ref(&given)).unwrap();
        assert!(roots.open(&target(&given.join("pods/mount"))).is_ok());
        let canonical = tmp.path().canonicalize().unwrap().join("data");
        assert!(roots.open(&target(&canonical.join("pods/mount"))).is_ok());
    }
}
