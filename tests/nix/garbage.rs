//! What a collector needs of a store: one suite over the fake and an installed Nix.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix_csi::model::StorePath;
use nix_csi::nix::fake::{Call, FakeNix};
use nix_csi::nix::{Config, Deletion, Freed, Garbage, RealNix, Root, daemon};
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, Timespec, Timestamps, statvfs, utimensat};

use super::{config, eventually, in_private_nix, running};

/// A store with a collector's view of it. Each test has paths of its own in it.
struct Store<'a> {
    nix: &'a dyn Garbage,
    /// Its directory.
    dir: PathBuf,
    /// Links here are roots.
    roots: PathBuf,
    /// Makes a path with these references: a directory with a file.
    make: &'a dyn Fn(&str, &[StorePath]) -> StorePath,
}

impl Store<'_> {
    fn path(&self, name: &str, references: &[&StorePath]) -> StorePath {
        let references: Vec<_> = references.iter().copied().cloned().collect();
        (self.make)(name, &references)
    }

    fn file(&self, path: &StorePath) -> PathBuf {
        self.dir.join(path.base_name())
    }

    fn root(&self, path: &StorePath) -> PathBuf {
        let link = self.roots.join(path.name());
        symlink(path.to_string(), &link).unwrap();
        link
    }

    fn is_there(&self, path: &StorePath) -> bool {
        let valid = self.nix.graph().unwrap().find(path).is_some();
        assert_eq!(valid, fs::symlink_metadata(self.file(path)).is_ok(), "{path}");
        valid
    }

    async fn delete(&self, paths: &[&StorePath]) -> Deletion {
        self.nix.delete(paths.iter().copied().cloned().collect()).await.unwrap()
    }

    fn frees(&self, paths: &[&StorePath]) -> Vec<Freed> {
        let paths: Vec<_> = paths.iter().copied().cloned().collect();
        self.nix.frees(&paths).unwrap()
    }
}

fn deletion(deleted: &[&StorePath], alive: &[&StorePath]) -> Deletion {
    let of = |paths: &[&StorePath]| paths.iter().copied().cloned().collect();
    Deletion { deleted: of(deleted), alive: of(alive) }
}

/// What the trait promises.
async fn suite(store: &Store<'_>) {
    what_is_alive_stays(store).await;
    what_became_alive_since_stays(store).await;
    a_referrer_that_is_not_named_keeps_a_path(store).await;
    links_decide_what_is_freed(store);
    looking_is_no_reading(store);
    there_is_one_collector(store.nix);
    what_is_not_valid_remains_and_can_be_deleted(store).await;
    let space = store.nix.space().unwrap();
    assert!(space.free_bytes > 0 && space.free_bytes < space.bytes, "{space:?}");
    assert!(space.free_inodes <= space.inodes, "{space:?}");
}

async fn what_is_alive_stays(store: &Store<'_>) {
    let base = store.path("base", &[]);
    let shared = store.path("shared", &[]);
    let lib = store.path("lib", &[&base, &shared]);
    let app = store.path("app", &[&lib]);
    let kept = store.path("kept", &[&shared]);
    let link = store.root(&kept);
    let root = Root { name: link.display().to_string(), path: kept.clone() };
    assert!(store.nix.roots().await.unwrap().contains(&root));

    let graph = store.nix.graph().unwrap();
    let index = |path| graph.find(path).unwrap();
    assert_eq!(graph.references(index(&kept)), [index(&shared)]);
    assert!(graph.path(index(&app)).nar_size > 0);

    let done = store.delete(&[&kept, &app, &lib, &base, &shared]).await;
    assert_eq!(done, deletion(&[&app, &lib, &base], &[&kept, &shared]));
    assert!(![&app, &lib, &base].into_iter().any(|path| store.is_there(path)));
    assert!([&kept, &shared].into_iter().all(|path| store.is_there(path)));

    // What is gone is neither.
    fs::remove_file(link).unwrap();
    assert_eq!(store.delete(&[&app, &kept, &lib, &shared]).await, deletion(&[&kept, &shared], &[]));
    assert_eq!(store.delete(&[&app, &kept]).await, deletion(&[], &[]));
    assert_eq!(store.delete(&[]).await, deletion(&[], &[]));
}

/// More paths below the new root than Nix would be asked for one by one, and all of them before the root
/// itself and the others in Nix's order.
async fn what_became_alive_since_stays(store: &Store<'_>) {
    let others: Vec<_> = (0..3).map(|n| store.path(&format!("other-{n}"), &[])).collect();
    let leaves: Vec<_> = (0..40).map(|n| store.path(&format!("leaf-{n}"), &[])).collect();
    let top = store.path("last-top", &leaves.iter().collect::<Vec<_>>());
    assert!(store.nix.roots().await.unwrap().iter().all(|root| root.path != top));

    let link = store.root(&top);
    let alive: Vec<_> = [&top].into_iter().chain(&leaves).collect();
    let all: Vec<_> = alive.iter().copied().chain(&others).collect();
    let others: Vec<_> = others.iter().collect();
    assert_eq!(store.delete(&all).await, deletion(&others, &alive));

    fs::remove_file(link).unwrap();
    assert_eq!(store.delete(&all).await, deletion(&alive, &[]));
}

async fn what_is_not_valid_remains_and_can_be_deleted(store: &Store<'_>) {
    let valid = store.path("whole", &[]);
    let half = StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-half").unwrap();
    let file = store.file(&half);
    fs::create_dir(&file).unwrap();
    fs::write(file.join("a"), "").unwrap();
    let gone = StorePath::parse("/nix/store/1123456789abcdfghijklmnpqrsvwxyz-gone").unwrap();
    let all = [valid.clone(), half.clone(), gone];
    assert_eq!(store.nix.remains(&all).unwrap(), std::slice::from_ref(&half));
    assert!(store.nix.delete_remains(half).await.unwrap());
    assert!(!file.try_exists().unwrap() && store.is_there(&valid));
    assert_eq!(store.nix.remains(&all).unwrap(), []);
}

async fn a_referrer_that_is_not_named_keeps_a_path(store: &Store<'_>) {
    let below = store.path("below", &[]);
    let needed = store.path("needed", &[&below]);
    let referrer = store.path("referrer", &[&needed]);
    let free = store.path("free", &[]);
    let done = store.delete(&[&needed, &below, &free]).await;
    assert_eq!(done, deletion(&[&free], &[&needed, &below]));
    let done = store.delete(&[&referrer, &needed, &below]).await;
    assert_eq!(done, deletion(&[&referrer, &needed, &below], &[]));
}

fn links_decide_what_is_freed(store: &Store) {
    let (one, two) = (store.path("one", &[]), store.path("two", &[]));
    let (of_one, of_two) = (store.file(&one), store.file(&two));
    let before = store.frees(&[&one, &two]);
    assert!(before.iter().all(|freed| freed.inodes >= 2 && freed.bytes > 0), "{before:?}");
    let gone = store.path("went", &[]);
    fs::remove_dir_all(store.file(&gone)).unwrap();
    assert_eq!(store.frees(&[&gone]), [Freed::default()]);

    let write = |file: &Path, kib: usize| {
        fs::write(file, vec![1; kib << 10]).unwrap();
        // Blocks are given when data is written back.
        fs::File::open(file).unwrap().sync_all().unwrap();
        let bytes = fs::metadata(file).unwrap().blocks() * 512;
        Freed { bytes, inodes: 1, helps: 0 }
    };
    let sum = |all: &[Freed]| Freed {
        bytes: all.iter().map(|freed| freed.bytes).sum(),
        inodes: all.iter().map(|freed| freed.inodes).sum(),
        helps: 0,
    };
    let inside = write(&of_one.join("inside"), 100);
    fs::hard_link(of_one.join("inside"), of_one.join("again")).unwrap();
    let across = write(&of_one.join("across"), 200);
    fs::hard_link(of_one.join("across"), of_two.join("across")).unwrap();
    write(&of_two.join("outside"), 300);
    let outside = store.dir.join("outside-of-both");
    fs::hard_link(of_two.join("outside"), &outside).unwrap();
    // As in an optimised store.
    let links = store.dir.join(".links");
    fs::create_dir_all(&links).unwrap();
    let optimised = write(&of_two.join("optimised"), 400);
    fs::hard_link(of_two.join("optimised"), links.join("0")).unwrap();
    fs::hard_link(of_one.join("across"), links.join("1")).unwrap();
    // Not followed.
    symlink("/", of_two.join("link")).unwrap();
    let symbolic = fs::symlink_metadata(of_two.join("link")).unwrap();
    let symbolic = Freed { bytes: symbolic.blocks() * 512, inodes: 1, helps: 0 };

    let own = [sum(&[before[0], inside]), sum(&[before[1], optimised, symbolic])];
    assert_eq!(store.frees(&[&one]), own[..1]);
    assert_eq!(store.frees(&[&two]), own[1..]);
    // What both have the last one gives, and the first one helps.
    let helps = |freed: Freed| Freed { helps: across.bytes, ..freed };
    assert_eq!(store.frees(&[&one, &two]), [helps(own[0]), sum(&[own[1], across])]);
    assert_eq!(
        store.frees(&[&two, &gone, &one]),
        [helps(own[1]), Freed::default(), sum(&[own[0], across])]
    );
    for file in [outside, links.join("0"), links.join("1")] {
        fs::remove_file(file).unwrap();
    }
}

/// Seconds since 1970.
const LONG_AGO: u64 = 1_000_000;

fn looking_is_no_reading(store: &Store) {
    let path = store.path("read", &[]);
    let file = store.file(&path);
    fs::create_dir(file.join("sub")).unwrap();
    let time = Timespec { tv_sec: i64::try_from(LONG_AGO).unwrap(), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for dir in [file.clone(), file.join("sub")] {
        utimensat(CWD, &dir, &times, AtFlags::empty()).unwrap();
    }
    assert!(store.frees(&[&path])[0].inodes >= 3);
    assert_eq!(store.nix.last_read(std::slice::from_ref(&path)), [Some(LONG_AGO)]);
    assert_eq!(fs::metadata(file.join("sub")).unwrap().atime().unsigned_abs(), LONG_AGO);

    if !statvfs(&store.dir).unwrap().f_flag.contains(StatVfsMountFlags::NOATIME) {
        assert!(fs::read_dir(&file).unwrap().count() > 0);
        assert!(store.nix.last_read(std::slice::from_ref(&path))[0] > Some(LONG_AGO));
    }
    fs::remove_dir_all(&file).unwrap();
    assert_eq!(store.nix.last_read(&[path]), [None]);
}

fn there_is_one_collector(nix: &dyn Garbage) {
    let sole = nix.sole().unwrap().unwrap();
    assert!(nix.sole().unwrap().is_none());
    let paths = ["0", "1"].map(|n| {
        StorePath::parse(&format!("/nix/store/{n}123456789abcdfghijklmnpqrsvwxyz-begun")).unwrap()
    });
    assert_eq!(sole.begun().unwrap(), []);
    sole.begin(&paths[..1]).unwrap();
    sole.begin(&paths[1..]).unwrap();
    // A child that outlives it has nothing of it.
    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    drop(sole);
    // Who comes next knows what was begun.
    let next = nix.sole().unwrap().unwrap();
    assert_eq!(next.begun().unwrap(), paths);
    next.end().unwrap();
    assert_eq!(next.begun().unwrap(), []);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn the_fake_has_what_a_collector_needs() {
    let dir = tempfile::tempdir().unwrap();
    let nix = FakeNix::new(dir.path()).unwrap();
    let roots = dir.path().join("roots");
    fs::create_dir(&roots).unwrap();
    nix.set_roots_dirs(&[&roots]);
    let make = |name: &str, references: &[StorePath]| nix.add_path(name, references).unwrap();
    let store = Store { nix: &nix, dir: dir.path().join("store"), roots, make: &make };
    suite(&store).await;

    // Whoever does not wait for a deletion any more has none.
    let path = store.path("held", &[]);
    let gate = nix.hold_call(Call::Delete);
    let mut held = nix.delete(vec![path.clone()]);
    assert!(futures::poll!(&mut held).is_pending());
    drop(held);
    gate.release();
    assert!(store.is_there(&path));
    assert_eq!(nix.deletions().last(), Some(&vec![path]));
}

/// Files and rows as Nix makes them, without a derivation, which would be one more referrer.
fn register(name: &str, references: &[StorePath]) -> StorePath {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // Nix sorts paths: those made later come first, but for those that are to be the last.
    let number = if name.starts_with("last") { 1000 + number } else { 999 - number };
    let path = StorePath::parse(&format!("/nix/store/{number:0>32}-{name}")).unwrap();
    let dir = PathBuf::from(path.to_string());
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("name"), name).unwrap();
    let database = rusqlite::Connection::open("/nix/var/nix/db/db.sqlite").unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let row =
        "insert into ValidPaths (path, hash, registrationTime, narSize) values (?1, ?2, 1, 9)";
    let hash = format!("sha256:{:064}", 0);
    database.execute(row, (path.to_string(), hash)).unwrap();
    let row = "insert into Refs select ?1, id from ValidPaths where path = ?2";
    let id = database.last_insert_rowid();
    // As a program that knows where it is.
    for reference in references.iter().chain([&path]) {
        assert_eq!(database.execute(row, (id, reference.to_string())).unwrap(), 1);
    }
    path
}

fn real_store(nix: &RealNix) -> Store<'_> {
    let roots = PathBuf::from(super::ROOTS);
    fs::create_dir_all(&roots).unwrap();
    Store { nix, dir: "/nix/store".into(), roots, make: &register }
}

#[tokio::test]
async fn the_real_one_has_what_a_collector_needs() {
    if !in_private_nix("garbage::the_real_one_has_what_a_collector_needs") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let nix = RealNix::open(config(home.path()));
    super::nix_store(&["--init"]);
    let store = real_store(&nix);
    suite(&store).await;
    let lock = fs::metadata("/nix/var/nix/nix-csi-gc.lock").unwrap();
    assert_eq!(lock.permissions().mode() & 0o777, 0o600);

    // What built a path that is alive may go, as `graph` has it.
    let text = "derivation { name = \"built\"; system = builtins.currentSystem; \
                builder = \"/bin/sh\"; args = [ \"-c\" \"echo > $out\" ]; }";
    let options = ["--option", "build-users-group", "", "--option", "sandbox", "false"];
    let output = Command::new("nix-build")
        .args(options)
        .args(["--out-link", store.roots.join("built").to_str().unwrap(), "-E", text])
        .output()
        .unwrap();
    let built = String::from_utf8(output.stdout).unwrap();
    let deriver = super::nix_store(&["-q", "--deriver", built.trim()]);
    let deriver = StorePath::parse(deriver.trim()).unwrap();
    assert_eq!(store.delete(&[&deriver]).await, deletion(&[&deriver], &[]));
}

#[tokio::test]
async fn a_daemon_deletes_for_a_collector() {
    if !in_private_nix("garbage::a_daemon_deletes_for_a_collector") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("run/socket");
    let config = Config { daemon_socket: Some(socket.clone()), ..config(home.path()) };
    super::nix_store(&["--init"]);
    daemon::prepare_socket(&socket).unwrap();
    let mut command = daemon::daemon_command(&config).unwrap().command();
    let command = command.stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    daemon::ready(&socket, Duration::from_secs(10)).await.unwrap();
    let nix = RealNix::open(config);
    let store = real_store(&nix);
    what_is_alive_stays(&store).await;
    what_became_alive_since_stays(&store).await;
    a_referrer_that_is_not_named_keeps_a_path(&store).await;
    child.kill().await.unwrap();
}

/// Nix's own test hook makes a collector wait once it has read the roots.
#[tokio::test]
async fn a_deletion_that_nobody_waits_for_ends() {
    if !in_private_nix("garbage::a_deletion_that_nobody_waits_for_ends") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let pipe = home.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let hook = |name: &str| (name.into(), pipe.clone().into());
    let environment = ["_NIX_TEST_GC_SYNC", "_NIX_TEST_GC_SYNC_2"].map(hook).to_vec();
    let nix = RealNix::open(Config { environment, ..config(home.path()) });
    super::nix_store(&["--init"]);
    let store = real_store(&nix);
    let path = store.path("held", &[]);
    let mark = path.to_string();
    let deleting = tokio::spawn(nix.delete(vec![path.clone()]));
    eventually("the deletion waits", || running(&mark) == 1).await;
    deleting.abort();
    eventually("the process ends", || running(&mark) == 0).await;
    assert!(store.is_there(&path));
}

#[tokio::test]
async fn what_nix_says_is_told() {
    if !in_private_nix("garbage::what_nix_says_is_told") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    super::nix_store(&["--init"]);
    let path = register("told", &[]);
    let says = |script: &str| {
        let bin = home.path().join("nix-store");
        fs::write(&bin, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
        let program = home.path().join("nix");
        RealNix::open(Config { program, ..config(home.path()) })
    };
    let refusal =
        |path: &str| format!("error: Cannot delete path '{path}' since it is still alive.");
    let other = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-other";
    for text in ["error: disk I/O error", &refusal(other)] {
        let nix = says(&format!("echo more >&2\necho \"{text}\" >&2\nexit 1"));
        let error = nix.delete(vec![path.clone()]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("nix-store --delete failed: {text}"));
    }

    // Who holds it is not always to be seen a moment later. It is not asked for again.
    let log = home.path().join("log");
    let text = refusal(&path.to_string());
    let script = format!(
        "case \"$*\" in *--delete*) echo x >>{}; echo \"{text}\" >&2; exit 1;; esac",
        log.display()
    );
    let done = says(&script).delete(vec![path.clone()]).await.unwrap();
    assert_eq!(done, deletion(&[], &[&path]));
    assert_eq!(fs::read_to_string(log).unwrap(), "x\n");
}
