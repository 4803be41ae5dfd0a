//! A pretend store, the driver's directories and a kubelet's, below one temporary directory.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use nix_csi::model::{Closure, PathInfo, StorePath, TargetPath, VolumeId};
use nix_csi::mount::{
    Config, MountError, Mounts, Presentation, PresentationChoice, RealMounts, View, ViewId,
};
use nix_csi::nix::NixError;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

pub(crate) const BOTH: [Presentation; 2] = [Presentation::Redirect, Presentation::Hardlink];

/// Runs `test` with a mount namespace of its own. The world's files are removed from outside, after
/// the namespace and its mounts are gone.
pub(crate) fn in_namespace(test: impl Fn(&World) + Send + Sync + 'static) {
    if !rustix::process::geteuid().is_root() {
        // Written past the harness's capture: a skip must be seen.
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        let line = format!(
            "SKIPPED {name}: it mounts, which needs root
"
        );
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return;
    }
    let dir = tempfile::Builder::new().prefix("w").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let base = dir.path().canonicalize().unwrap();
    let body = std::thread::spawn(move || {
        enter_namespace();
        test(&World::make(&base));
    });
    if let Err(panic) = body.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Whether this machine has loop devices, which volumes with a size need.
pub(crate) fn can_bound() -> bool {
    let can = fs::File::open("/dev/loop-control").is_ok();
    if !can {
        std::io::stderr().write_all(b"SKIPPED volumes with a size: no loop devices\n").unwrap();
    }
    can
}

/// The calling thread's own mounts from now on.
pub(crate) fn enter_namespace() {
    #[expect(deprecated, reason = "the other form is unsafe; file tables stay shared here")]
    rustix::thread::unshare(rustix::thread::UnshareFlags::FS | rustix::thread::UnshareFlags::NEWNS)
        .unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
}

pub(crate) struct World {
    pub(crate) base: PathBuf,
    pub(crate) store: PathBuf,
    pub(crate) views: PathBuf,
    pub(crate) volumes: PathBuf,
    pub(crate) pods: PathBuf,
}

const HASH: &str = "0123456789abcdfghijklmnpqrsvwxy";

pub(crate) fn store_path(n: char, name: &str) -> StorePath {
    StorePath::from_base_name(&format!("{HASH}{n}-{name}")).unwrap()
}

pub(crate) fn volume(name: &str) -> VolumeId {
    VolumeId::parse(name).unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "a callback's type")]
pub(crate) fn no_database(_: &Path) -> Result<(), NixError> {
    Ok(())
}

impl World {
    pub(crate) fn make(base: &Path) -> Self {
        let world = Self::at(base);
        for dir in [&world.store, &world.pods] {
            fs::create_dir_all(dir).unwrap();
        }
        fill_store(&world);
        world
    }

    pub(crate) fn at(base: &Path) -> Self {
        Self {
            base: base.to_owned(),
            store: base.join("store"),
            views: base.join("state/views"),
            volumes: base.join("state/volumes"),
            pods: base.join("pods"),
        }
    }

    pub(crate) fn config(&self, presentation: Presentation) -> Config {
        Config {
            store_dir: self.store.clone(),
            views_dir: self.views.clone(),
            volumes_dir: self.volumes.clone(),
            target_roots: vec![self.pods.clone()],
            presentation: match presentation {
                Presentation::Redirect => PresentationChoice::Redirect,
                Presentation::Hardlink => PresentationChoice::Hardlink,
            },
            search_path: std::ffi::OsString::new(),
        }
    }

    pub(crate) fn open(&self, presentation: Presentation) -> RealMounts {
        RealMounts::open(&self.config(presentation)).unwrap()
    }

    /// Directory, file and symlink paths; `other` is in the store and not in the closure.
    #[expect(clippy::unused_self, reason = "reads as a part of the world")]
    pub(crate) fn closure(&self) -> Closure {
        let paths = [('0', "hello-2.12"), ('1', "single.conf"), ('2', "link"), ('3', "odd+names")];
        Closure {
            root: store_path('0', "hello-2.12"),
            paths: paths
                .map(|(n, name)| PathInfo { path: store_path(n, name), nar_size: 100 })
                .into(),
        }
    }

    #[expect(clippy::unused_self, reason = "reads as a part of the world")]
    pub(crate) fn other(&self) -> StorePath {
        store_path('4', "other")
    }

    #[expect(clippy::unused_self, reason = "reads as a part of the world")]
    pub(crate) fn id(&self, n: u64) -> ViewId {
        ViewId::new(&store_path('0', "hello-2.12"), n)
    }

    /// With a file in place of a database.
    pub(crate) fn view(&self, mounts: &dyn Mounts, n: u64) -> Result<View, MountError> {
        mounts.create_view(&self.id(n), &self.closure(), &|db| file_in(db, b"rows"))
    }

    /// A target whose parent exists, as the kubelet leaves it.
    pub(crate) fn target(&self, pod: &str) -> TargetPath {
        let parent = self.pods.join(pod).join("volumes");
        fs::create_dir_all(&parent).unwrap();
        self.target_at(&parent.join("mount"))
    }

    #[expect(clippy::unused_self, reason = "reads as a part of the world")]
    pub(crate) fn target_at(&self, path: &Path) -> TargetPath {
        TargetPath::parse("target_path", path.to_str().unwrap()).unwrap()
    }

    /// Mounts at or below the path.
    #[expect(clippy::unused_self, reason = "reads as a part of the world")]
    pub(crate) fn mounts_below(&self, path: &Path) -> usize {
        let text = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        text.lines()
            .filter(|line| Path::new(line.split(' ').nth(4).unwrap()).starts_with(path))
            .count()
    }
}

/// In place of a database.
pub(crate) fn file_in(dir: &Path, content: &[u8]) -> Result<(), NixError> {
    let path = dir.join("db.sqlite");
    fs::write(&path, content).map_err(|source| NixError::Io { verb: "write", path, source })
}

/// Loop devices of files below the path.
pub(crate) fn loops_below(path: &Path) -> Vec<PathBuf> {
    let device = |entry: std::io::Result<fs::DirEntry>| {
        let dir = entry.unwrap().path();
        let file = fs::read_to_string(dir.join("loop/backing_file")).ok()?;
        Path::new(&file).starts_with(path).then_some(dir)
    };
    fs::read_dir("/sys/block").unwrap().filter_map(device).collect()
}

/// A device ends with its last mount, which may be in the namespace of a process that is ending; that of the
/// probe at a start ends a moment after it.
pub(crate) fn assert_loops_below(path: &Path, count: usize, what: &str) {
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let loops = loops_below(path);
        if loops.len() == count {
            return;
        }
        assert!(tokio::time::Instant::now() < end, "{what}: {loops:?}");
        std::thread::yield_now();
    }
}

pub(crate) fn mount_tmpfs(at: &Path, options: &str) {
    fs::create_dir_all(at).unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
}

pub(crate) fn unmount(at: &Path) {
    rustix::mount::unmount(at, UnmountFlags::NOFOLLOW).unwrap();
}

/// Also one that a child process still has a descriptor of, between its fork and its exec.
pub(crate) fn lose_mount(at: &Path) {
    rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).unwrap();
}

fn fill_store(world: &World) {
    let at = |path: &StorePath| world.store.join(path.base_name());
    let paths: Vec<_> = world.closure().paths.into_iter().map(|p| p.path).collect();
    let hello = at(&paths[0]);
    fs::create_dir_all(hello.join("share/empty/deeper")).unwrap();
    fs::create_dir(hello.join("bin")).unwrap();
    fs::write(hello.join("bin/hello"), "#!/bin/sh\necho hello\n").unwrap();
    fs::hard_link(hello.join("bin/hello"), hello.join("bin/hi")).unwrap();
    symlink("hello", hello.join("bin/relative")).unwrap();
    symlink(format!("{}/x", paths[1]), hello.join("share/absolute")).unwrap();
    symlink("/nowhere", hello.join("share/dangling")).unwrap();
    fs::write(at(&paths[1]), "key = value\n").unwrap();
    symlink(paths[0].to_string(), at(&paths[2])).unwrap();
    let odd = at(&paths[3]);
    fs::create_dir(&odd).unwrap();
    for name in [b"a:b".as_slice(), b"c,d", b"e f", b"\xff\xfe", b"q\\r", b"-n", b"new\nline"] {
        fs::write(odd.join(OsStr::from_bytes(name)), name).unwrap();
        let dir = [b"dir ", name].concat();
        fs::create_dir(odd.join(OsStr::from_bytes(&dir))).unwrap();
    }
    fs::create_dir(at(&world.other())).unwrap();
    fs::write(at(&world.other()).join("secret"), "of another closure").unwrap();
    for path in &paths {
        normalise(&at(path), 1);
    }
    // A store that somebody else made: owners and times are shown as they are.
    lchown(&odd, Some(1000), Some(100)).unwrap();
    lchown(at(&paths[2]), Some(1000), Some(100)).unwrap();
    normalise(&at(&paths[2]), 1_234_567_890);
}

/// Read-only, executable where it was, with an old time; as Nix does.
fn normalise(path: &Path, time: i64) {
    let meta = fs::symlink_metadata(path).unwrap();
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            normalise(&entry.unwrap().path(), time);
        }
    }
    if !meta.is_symlink() {
        let executable = meta.is_dir() || path.parent().unwrap().ends_with("bin");
        let mode = if executable { 0o555 } else { 0o444 };
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    let stamp = Timespec { tv_sec: time, tv_nsec: 7 };
    let times = Timestamps { last_access: stamp, last_modification: stamp };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
