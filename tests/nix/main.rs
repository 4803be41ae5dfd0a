//! One suite over the fake and an installed Nix, and what only the real one can show. The real one
//! works on a throw-away store: each test runs again in a mount namespace with its own `/nix`.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix_csi::model::{Source, StorePath, Viewer};
use nix_csi::nix::fake::FakeNix;
use nix_csi::nix::{
    Buildable, Config, Flavour, Nix, Origin, ProgressSink, RealNix, RealiseError, Realised, daemon,
    sweep_staging,
};
use tokio::time::Instant;

mod garbage;

const ROOTS: &str = "/nix/var/nix/gcroots/nix-csi";
const INSIDE: &str = "NIX_CSI_TEST_PRIVATE_NIX";

/// True inside a private namespace. Outside it runs the test there, or says why it is skipped.
#[expect(clippy::explicit_write, reason = "the harness captures eprintln")]
fn in_private_nix(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    // scripts/test-nix-versions.sh: a root with another Nix.
    let root = std::env::var_os("NIX_CSI_TEST_ROOT").filter(|root| !root.is_empty());
    let found = root.is_some() || Command::new("nix").arg("--version").output().is_ok();
    if !found || !rustix::process::geteuid().is_root() {
        writeln!(std::io::stderr(), "SKIPPED {test}: needs root and an installed Nix").unwrap();
        assert!(std::env::var_os("CI").is_none(), "{test} is skipped in CI");
        return false;
    }
    let store = tempfile::tempdir().unwrap();
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut command = if let Some(root) = &root {
        let mut command = Command::new(scripts.join("in-lab.sh"));
        command.arg("--nix-root").arg(root).arg("--dir").arg(store.path()).arg("--");
        command
    } else {
        let mut command = Command::new(scripts.join("in-private-nix.sh"));
        command.arg(store.path());
        command
    };
    let status = command
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    // Store paths are read-only directories.
    let _ = Command::new("chmod").arg("-R").arg("u+w").arg(store.path()).status();
    assert!(status.success(), "{test} failed in its namespace");
    false
}

fn config(home: &Path) -> Config {
    let mut config = Config::new(home);
    config.nix_options = [
        ("sandbox", "false"),
        ("build-users-group", ""),
        ("substituters", ""),
        ("flake-registry", ""),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .to_vec();
    config
}

/// A real Nix on the private store, and its directory of roots.
fn real(home: &Path) -> (RealNix, PathBuf) {
    fs::create_dir_all(ROOTS).unwrap();
    (RealNix::open(config(home)), PathBuf::from(ROOTS))
}

fn derivation(name: &str, script: &str) -> Source {
    Source::NixExpr(format!(
        "derivation {{ name = \"{name}\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
         PATH = \"/bin:/usr/bin\"; args = [ \"-c\" ''{script}'' ]; }}"
    ))
}

/// `closures.nix` with its defaults changed: five paths, or as many as asked for.
fn closure_source(paths: usize, files: usize, seed: &str) -> Source {
    let text = include_str!("../data/closures.nix")
        .replace("{ paths ? 5", &format!("{{ paths ? {paths}"))
        .replace("files ? 50\n", &format!("files ? {files}\n"))
        .replace("seed ? \"small\"", &format!("seed ? \"{seed}\""));
    Source::NixExpr(text)
}

fn nix_store(args: &[&str]) -> String {
    let output = Command::new("nix-store")
        .args(["--option", "build-users-group", ""])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "nix-store {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn leads_to(root: &Path, path: &StorePath) -> bool {
    fs::read_link(root).is_ok_and(|t| t == Path::new(&path.to_string()))
}

/// Evaluates, then realises, as a build actor does.
async fn realise(
    nix: &dyn Nix,
    source: Source,
    root: PathBuf,
    sink: ProgressSink,
) -> Result<Realised, RealiseError> {
    struct Derivation(PathBuf);
    impl Drop for Derivation {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }
    let derivation = Derivation(root.with_extension("drv"));
    let what = match source {
        Source::StorePath(path) => Buildable::Path(path),
        source => {
            let (who, link) = (Viewer::local(), derivation.0.clone());
            nix.evaluate(source, who, link, sink.clone()).await?.buildable
        }
    };
    nix.realise((what, Viewer::local()), root, sink, Arc::new(())).await
}

/// What the trait promises. `good` can be realised, `bad` can't; collecting keeps `roots`.
async fn suite(nix: &dyn Nix, roots: &Path, good: Source, bad: Source, collect: &dyn Fn()) {
    let root = roots.join("volume");
    let sink = ProgressSink::default();
    let first = realise(nix, good.clone(), root.clone(), sink).await.unwrap();
    assert!(leads_to(&root, &first.root));
    let again = realise(nix, good, root.clone(), ProgressSink::default()).await.unwrap();
    assert_eq!(again.root, first.root);
    assert_eq!(names(roots), ["volume"]);

    collect();
    assert!(nix.store_dir().join(first.root.base_name()).is_dir());
    let closure = nix.closure(&first.root).unwrap();
    assert!(closure.paths.windows(2).all(|w| w[0].path < w[1].path));
    assert!(closure.paths.iter().any(|p| p.path == first.root));

    let second = roots.join("second");
    assert!(nix.root_if_valid(&first.root, &second).unwrap());
    fs::remove_file(&root).unwrap();
    collect();
    assert!(nix.root_if_valid(&first.root, &second).unwrap());

    let by_path = Source::StorePath(first.root.clone());
    let third = realise(nix, by_path, root.clone(), ProgressSink::default()).await.unwrap();
    assert_eq!((third.root, third.origin), (first.root.clone(), Origin::Present));

    let failed = roots.join("failed");
    let error = realise(nix, bad, failed.clone(), ProgressSink::default()).await.unwrap_err();
    assert!(!matches!(error, RealiseError::Store(_)), "{error}");
    let unknown = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-nobody";
    let unknown = StorePath::parse(unknown).unwrap();
    assert!(!nix.root_if_valid(&unknown, &failed).unwrap());
    assert!(nix.closure(&unknown).is_err());
    let error = realise(nix, Source::StorePath(unknown), failed, ProgressSink::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), "not_found", "{error}");
    assert_eq!(names(roots), ["second", "volume"]);

    let db = roots.parent().unwrap().join("view-db");
    nix.write_database(&closure, &db).unwrap();
    assert_eq!(names(&db), ["db.sqlite", "schema"]);

    fs::remove_file(&root).unwrap();
    fs::remove_file(&second).unwrap();
    collect();
    assert!(!nix.root_if_valid(&first.root, &second).unwrap());
    assert_eq!(names(roots), [""; 0]);
}

#[tokio::test]
async fn the_fake_keeps_the_promises() {
    let dir = tempfile::tempdir().unwrap();
    let nix = FakeNix::new(dir.path()).unwrap();
    let roots = dir.path().join("roots");
    fs::create_dir(&roots).unwrap();
    let root = nix.add_closure("app", 5).unwrap();
    let good = Source::NixExpr("good".into());
    nix.answer(good.clone(), root, Origin::Built);
    let collect = || drop(nix.collect_garbage(&[&roots]).unwrap());
    suite(&nix, &roots, good, Source::NixExpr("bad".into()), &collect).await;
}

#[tokio::test]
async fn the_real_one_keeps_the_promises() {
    if !in_private_nix("the_real_one_keeps_the_promises") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (nix, roots) = real(home.path());
    let found = nix.probe().await.unwrap();
    assert!(found.flavour == Flavour::CppNix && found.version >= (2, 8));
    let collect = || drop(nix_store(&["--gc"]));
    let good = closure_source(5, 50, "suite");
    suite(&nix, &roots, good, derivation("bad", "exit 3"), &collect).await;
    nix.roots_visible(&roots).await.unwrap();
    let error = nix.roots_visible(home.path()).await.unwrap_err();
    assert!(error.to_string().contains("does not list it"), "{error}");
    assert_eq!(names(&roots), [""; 0]);
}

#[tokio::test]
async fn every_kind_of_source_is_realised() {
    if !in_private_nix("every_kind_of_source_is_realised") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (nix, roots) = real(home.path());
    let root = roots.join("r");
    let realise_again = |source| realise(&nix, source, root.clone(), ProgressSink::default());

    let sink = ProgressSink::default();
    let source = derivation("ok", "echo one; echo a > $out");
    let built = realise(&nix, source.clone(), root.clone(), sink.clone()).await.unwrap();
    assert_eq!(built.origin, Origin::Built);
    assert_eq!(sink.snapshot().log_tail, ["one"]);
    assert_eq!(realise_again(source).await.unwrap().origin, Origin::Present);

    let Source::NixExpr(text) = derivation("fl", "echo a > $out") else { unreachable!() };
    let text = text.replace("builtins.currentSystem", "\"x86_64-linux\"");
    let flake = home.path().join("flake");
    fs::create_dir(&flake).unwrap();
    let flake_text = format!("{{ outputs = _: {{ packages.x86_64-linux.default = {text}; }}; }}");
    fs::write(flake.join("flake.nix"), flake_text).unwrap();
    let source = Source::FlakeRef(format!("path:{}", flake.display()));
    assert_eq!(realise_again(source).await.unwrap().root.name(), "fl");
    assert_eq!(names(&flake), ["flake.nix"]);

    let multi = "derivation { name = \"m\"; outputs = [ \"dev\" \"bin\" ]; \
                 system = builtins.currentSystem; builder = \"/bin/sh\"; PATH = \"/bin\"; \
                 args = [ \"-c\" \"mkdir $dev $bin\" ]; }";
    let realised = realise_again(Source::NixExpr(multi.into())).await.unwrap();
    // Nix 2.8 builds the default output only.
    assert!(["m-bin", "m-dev"].contains(&realised.root.name()));
    assert!(leads_to(&root, &realised.root));

    for (source, kind) in [
        (derivation("bad", "exit 3"), "build_failed"),
        (Source::NixExpr("throw \"boo\"".into()), "refused"),
        (Source::NixExpr("[ ]".into()), "refused"),
        (Source::NixExpr("builtins.readFile /etc/passwd".into()), "refused"),
        (Source::NixExpr("--help".into()), "refused"),
        (Source::FlakeRef("--help".into()), "refused"),
        (Source::FlakeRef("path:/nonexistent".into()), "refused"),
    ] {
        let error = realise_again(source.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{source:?}: {error}");
        // An error never takes the root that was there before.
        assert!(leads_to(&root, &realised.root));
    }
    assert_eq!(names(&roots), ["r"]);
}

/// Processes whose command line has `mark` in it.
fn running(mark: &str) -> usize {
    let own = std::process::id().to_string();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|pid| pid.bytes().all(|c| c.is_ascii_digit()) && *pid != own)
        .filter_map(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(mark))
        .count()
}

async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let mut again = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..1500 {
        if holds() {
            return;
        }
        again.tick().await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn cancelling_and_time_limits_end_every_process() {
    if !in_private_nix("cancelling_and_time_limits_end_every_process") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (_, roots) = real(home.path());
    for limit in [None, Some(Duration::from_secs(3))] {
        let mark = format!("98{}.{}", u8::from(limit.is_some()), std::process::id());
        let source = derivation("slow", &format!("echo started; sleep {mark}; echo > $out"));
        let mut config = config(home.path());
        config.limits.realise.most = limit.unwrap_or_default();
        let nix = RealNix::open(config);
        let sink = ProgressSink::default();
        let task = tokio::spawn({
            let (nix, roots, sink) = (nix.clone(), roots.clone(), sink.clone());
            async move { realise(&nix, source, roots.join("r"), sink).await }
        });
        let is_built = || sink.snapshot().log_tail.iter().any(|l| l == "started");
        eventually("the build starts", is_built).await;
        assert!(running(&mark) >= 1);
        if limit.is_none() {
            task.abort();
        } else {
            let error = task.await.unwrap().unwrap_err();
            assert_eq!(error.to_string(), "build took longer than 3s: raise --realise-timeout");
        }
        eventually("all processes end", || running(&mark) == 0).await;
        eventually("the staging directory goes", || names(&roots).is_empty()).await;
    }
    assert_eq!(sweep_staging(&roots).unwrap(), 0);
}

#[tokio::test]
async fn a_root_made_below_a_running_collector_holds() {
    if !in_private_nix("a_root_made_below_a_running_collector_holds") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (nix, roots) = real(home.path());
    // Two processes that make the same store at once read each other's half-written files.
    nix_store(&["--init"]);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let collections = Arc::new(AtomicUsize::new(0));
    let counted = collections.clone();
    let collector = std::thread::spawn(move || {
        let mut runs = 0;
        while !stopped.load(Ordering::Relaxed) {
            nix_store(&["--gc"]);
            runs += 1;
            counted.store(runs, Ordering::Relaxed);
        }
        runs
    });
    let (mut kept, mut gone) = (0, 0);
    for round in 0..12 {
        let root = roots.join("r");
        let source = closure_source(6, 20, &format!("gc{round}"));
        let realised = realise(&nix, source, root.clone(), ProgressSink::default()).await.unwrap();
        // Now only the race is between it and the collector.
        fs::remove_file(&root).unwrap();
        let (nix, path, link) = (nix.clone(), realised.root.clone(), root.clone());
        let valid = tokio::task::spawn_blocking(move || nix.root_if_valid(&path, &link));
        if valid.await.unwrap().unwrap() {
            kept += 1;
            // One may be under way; the one after it sees everything.
            let before = collections.load(Ordering::Relaxed);
            let later = || collections.load(Ordering::Relaxed) >= before + 2;
            eventually("two collections end", later).await;
            for path in nix_store(&["-qR", &realised.root.to_string()]).lines() {
                assert!(fs::symlink_metadata(path).is_ok(), "{path} was collected");
            }
            fs::remove_file(&root).unwrap();
        } else {
            gone += 1;
            assert!(fs::symlink_metadata(&root).is_err());
        }
    }
    stop.store(true, Ordering::Relaxed);
    let runs = collector.join().unwrap();
    println!("{kept} kept, {gone} collected, {runs} collections");
    assert!(kept > 0 && runs > 1);
}

/// A directory with a `nix-store` that takes away again what it realised, so many times: as a
/// collector may that read the roots before.
fn robbed_nix(home: &Path, times: usize) -> PathBuf {
    let script = format!(
        r#"#!/bin/sh -e
real=/usr/bin/nix-store
$real "$@"
for link in {ROOTS}/.nix-csi-*/result; do
  robbed=$(ls {home} | grep -c robbed || true)
  if test -L "$link" && test "$robbed" -lt {times}; then
    path=$(readlink "$link")
    mv "$link" {home}/robbed-$$
    $real --option build-users-group '' --delete "$path" >&2
    ln -s "$path" "$link"
  fi
done
"#,
        home = home.display()
    );
    let bin = home.join("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink("/usr/bin/nix", bin.join("nix")).unwrap();
    fs::write(bin.join("nix-store"), script).unwrap();
    fs::set_permissions(bin.join("nix-store"), fs::Permissions::from_mode(0o755)).unwrap();
    bin
}

#[tokio::test]
async fn what_a_collector_took_at_once_is_made_again() {
    if !in_private_nix("what_a_collector_took_at_once_is_made_again") {
        return;
    }
    for (times, held) in [(2, true), (3, false)] {
        let home = tempfile::tempdir().unwrap();
        let mut config = config(home.path());
        // The programs are looked for beside each other.
        config.program = robbed_nix(home.path(), times).join("nix");
        fs::create_dir_all(ROOTS).unwrap();
        let (nix, root) = (RealNix::open(config), Path::new(ROOTS).join("r"));
        let source = derivation(&format!("robbed{times}"), "echo > $out");
        let realised = realise(&nix, source, root.clone(), ProgressSink::default()).await;
        assert_eq!(names(home.path()).iter().filter(|n| n.starts_with("robbed")).count(), times);
        if held {
            assert!(nix.closure(&realised.unwrap().root).is_ok());
            fs::remove_file(&root).unwrap();
        } else {
            let error = realised.unwrap_err();
            assert_eq!(error.kind(), "temporary", "{error}");
            assert!(error.to_string().contains("a garbage collector took /nix/store/"), "{error}");
            assert!(fs::symlink_metadata(&root).is_err());
        }
    }
}

/// A collector that has read the roots and waits for the pipe before it deletes anything.
fn paused_collector(pipe: &Path) -> std::process::Child {
    assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    Command::new("nix-store")
        .args(["--option", "build-users-group", "", "--gc"])
        // Nix's own test hook; the second name is that of newer versions.
        .env("_NIX_TEST_GC_SYNC", pipe)
        .env("_NIX_TEST_GC_SYNC_2", pipe)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_root_made_while_a_collector_has_read_the_roots_holds() {
    if !in_private_nix("a_root_made_while_a_collector_has_read_the_roots_holds") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (nix, roots) = real(home.path());
    let mut paths = Vec::new();
    for name in ["kept", "lost"] {
        let source = closure_source(4, 20, name);
        let realised = realise(&nix, source, roots.join(name), ProgressSink::default()).await;
        fs::remove_file(roots.join(name)).unwrap();
        paths.push(realised.unwrap().root);
    }
    let [kept, lost] = &paths[..] else { unreachable!() };
    let pipe = home.path().join("pipe");
    let mut collector = paused_collector(&pipe);
    // A pipe opens for writing without waiting once somebody waits to read it: the collector has
    // read the roots, and waits for the end of this file.
    let reached = std::cell::RefCell::new(None);
    eventually("the collector has read the roots", || {
        let mut writer = fs::OpenOptions::new();
        *reached.borrow_mut() = writer.write(true).custom_flags(libc::O_NONBLOCK).open(&pipe).ok();
        reached.borrow().is_some()
    })
    .await;

    // A symlink alone comes too late for it; this shows that the collector is where it should be.
    std::os::unix::fs::symlink(lost.to_string(), roots.join("lost")).unwrap();
    let (other, path, link) = (nix.clone(), kept.clone(), roots.join("kept"));
    let placed = tokio::task::spawn_blocking(move || other.root_if_valid(&path, &link));
    assert!(placed.await.unwrap().unwrap());
    drop(reached);
    assert!(collector.wait().unwrap().success());
    assert_eq!(nix.closure(kept).unwrap().paths.len(), 4);
    assert!(nix.store_dir().join(kept.base_name()).is_dir());
    assert!(!nix.root_if_valid(lost, &roots.join("lost")).unwrap());
    assert_eq!(names(&roots), ["kept"]);
}

#[tokio::test]
async fn a_daemon_of_our_own_serves_and_cancels() {
    if !in_private_nix("a_daemon_of_our_own_serves_and_cancels") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (_, roots) = real(home.path());
    let mut config = config(home.path());
    let socket = home.path().join("run/socket");
    config.daemon_socket = Some(socket.clone());
    daemon::prepare_socket(&socket).unwrap();
    let mut child = daemon::daemon_command(&config)
        .unwrap()
        .command()
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid_file = daemon::PidFile::new(home.path().join("pid"));
    pid_file.write(child.id().unwrap()).unwrap();
    daemon::ready(&socket, Duration::from_secs(10)).await.unwrap();

    let nix = RealNix::open(config);
    nix.roots_visible(&roots).await.unwrap();
    let root = roots.join("r");
    let source = derivation("ok", "echo one; echo a > $out");
    let built = realise(&nix, source, root.clone(), ProgressSink::default()).await.unwrap();
    assert!(built.origin == Origin::Built && leads_to(&root, &built.root));
    let failing = derivation("bad", "echo why; exit 3");
    let error = realise(&nix, failing, root.clone(), ProgressSink::default()).await.unwrap_err();
    assert!(
        matches!(error, RealiseError::BuildFailed { ref log_tail, .. } if log_tail == &["why"])
    );

    let mark = format!("97.{}", std::process::id());
    let sink = ProgressSink::default();
    let slow = derivation("slow", &format!("echo started; sleep {mark}"));
    let task = tokio::spawn({
        let (nix, roots, sink) = (nix.clone(), roots.clone(), sink.clone());
        async move { realise(&nix, slow, roots.join("s"), sink).await }
    });
    let is_built = || sink.snapshot().log_tail.iter().any(|l| l == "started");
    eventually("the build starts", is_built).await;
    task.abort();
    eventually("the daemon ends the build", || running(&mark) == 0).await;
    eventually("the staging directory goes", || names(&roots) == ["r"]).await;

    assert!(pid_file.end_leftover().await.unwrap());
    child.wait().await.unwrap();
    let source = derivation("late", "echo a > $out");
    let error = realise(&nix, source, root, ProgressSink::default()).await.unwrap_err();
    assert_eq!(error.kind(), "temporary", "{error}");
}

#[tokio::test]
async fn a_closures_database_satisfies_nix() {
    if !in_private_nix("a_closures_database_satisfies_nix") {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (nix, roots) = real(home.path());
    let source = closure_source(300, 300, "wide");
    let root = realise(&nix, source, roots.join("r"), ProgressSink::default()).await.unwrap().root;
    let began = Instant::now();
    let closure = nix.closure(&root).unwrap();
    let read = began.elapsed();
    let mut wanted: Vec<_> =
        nix_store(&["-qR", &root.to_string()]).lines().map(str::to_owned).collect();
    wanted.sort();
    let paths: Vec<_> = closure.paths.iter().map(|p| p.path.to_string()).collect();
    assert_eq!(paths, wanted);

    // A root whose /nix/var/nix/db is the new database and whose store is this one's.
    let other = home.path().join("other");
    let state = other.join("nix/var/nix");
    let began = Instant::now();
    nix.write_database(&closure, &state.join("db")).unwrap();
    println!("{} paths: read {read:?}, written {:?}", paths.len(), began.elapsed());
    fs::create_dir_all(other.join("nix/store")).unwrap();
    let store = other.join("nix/store");
    let args = ["-c", "mount --bind /nix/store \"$0\"", store.to_str().unwrap()];
    assert!(Command::new("sh").args(args).status().unwrap().success());
    let uri = format!("local?root={}", other.display());
    let listed = nix_store(&["--store", &uri, "-qR", &root.to_string()]);
    assert_eq!(listed.lines().count(), wanted.len());
    nix_store(&["--store", &uri, "--verify"]);
    nix_store(&["--store", &uri, "--verify-path", &root.to_string()]);
    let references = |more: &[&str]| {
        let text = nix_store(&[more, &["-q", "--references", &root.to_string()]].concat());
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(references(&["--store", &uri]), references(&[]));
    assert!(Command::new("umount").arg(&store).status().unwrap().success());
}
