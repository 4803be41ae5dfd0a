//! What others do, without a driver around it: no connection, no record, no checks.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tokio::time::Instant;

use crate::closures::Closure;
use crate::images;
use crate::lab::Lab;
use crate::report::Row;

/// Trees of links for large closures take seconds each.
const TREES: usize = 3;

pub type Measured = Vec<(Row, Duration)>;

/// What a publish has to be compared with: one bare bind mount and its end, and a file that is on the disk.
pub fn floors(lab: &Lab, closure: &Closure) -> Measured {
    let name = closure.size.name;
    let synced = synced(&[b'x'; 400]);
    let at = lab.target("bind");
    let began = Instant::now();
    fs::create_dir(&at).unwrap();
    mount_bind("/nix/store", &at).unwrap();
    let mounted = Instant::now();
    unmount(&at, UnmountFlags::empty()).unwrap();
    fs::remove_dir(&at).unwrap();
    let unmounted = mounted.elapsed();
    vec![
        (Row::other("publish-warm", name, "bind"), mounted - began),
        (Row::other("publish-warm", name, "one fsync"), synced),
        (Row::other("unpublish", name, "bind"), unmounted),
    ]
}

/// Until a file with these bytes is on the disk.
pub fn synced(bytes: &[u8]) -> Duration {
    let began = Instant::now();
    let mut file = File::create("/nix/synced").unwrap();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    let took = began.elapsed();
    fs::remove_file("/nix/synced").unwrap();
    took
}

/// What costs more than a warm publish.
pub fn slow(lab: &Lab, closure: &Closure, round: usize) -> Measured {
    let mut all = bind_per_path(lab, closure);
    if round < TREES {
        all.extend(hard_links(lab, closure, round == 0));
    }
    if round == 0 {
        all.extend(copied(lab, closure));
        all.extend(images::unpacked(closure));
    }
    all
}

/// One bind mount for each store path; costs the same for each volume.
fn bind_per_path(lab: &Lab, closure: &Closure) -> Measured {
    let name = closure.size.name;
    let at = lab.target("bind-per-path");
    fs::create_dir(&at).unwrap();
    let targets: Vec<_> =
        closure.paths.iter().map(|path| at.join(path.file_name().unwrap())).collect();
    let began = Instant::now();
    for (path, target) in closure.paths.iter().zip(&targets) {
        fs::create_dir(target).unwrap();
        mount_bind(path, target).unwrap();
    }
    let mounted = Instant::now();
    for target in &targets {
        unmount(target, UnmountFlags::empty()).unwrap();
        fs::remove_dir(target).unwrap();
    }
    let unmounted = mounted.elapsed();
    fs::remove_dir(&at).unwrap();
    vec![
        (Row::other("publish-warm", name, "bind-per-path"), mounted - began),
        (Row::other("unpublish", name, "bind-per-path"), unmounted),
    ]
}

/// A tree with a hard link for each file, and one bind mount of it; then, with `image`, an EROFS of that tree.
fn hard_links(lab: &Lab, closure: &Closure, image: bool) -> Measured {
    let name = closure.size.name;
    // Links don't cross mounts, so the tree is on the store's.
    let (tree, at) = (Path::new("/nix/hard-links"), lab.target("hard-links"));
    let began = Instant::now();
    fs::create_dir(tree).unwrap();
    for path in &closure.paths {
        link(path, &tree.join(path.file_name().unwrap()));
    }
    fs::create_dir(&at).unwrap();
    mount_bind(tree, &at).unwrap();
    let mounted = Instant::now();
    unmount(&at, UnmountFlags::empty()).unwrap();
    fs::remove_dir(&at).unwrap();
    let mut unmounted = mounted.elapsed();
    let erofs = if image { erofs(tree, name) } else { vec![] };
    let began_to_remove = Instant::now();
    fs::remove_dir_all(tree).unwrap();
    unmounted += began_to_remove.elapsed();
    // What is measured next must not wait for this one's writes.
    rustix::fs::syncfs(fs::File::open("/nix").unwrap()).unwrap();
    let mut all = vec![
        (Row::other("publish-cold", name, "hard links"), mounted - began),
        (Row::other("unpublish-cold", name, "hard links"), unmounted),
    ];
    all.extend(erofs);
    all
}

/// An image with the closure in it, mounted without a loop device.
fn erofs(tree: &Path, name: &'static str) -> Measured {
    let (image, at) = ("/nix/erofs-image", "/nix/erofs");
    fs::create_dir(at).unwrap();
    let began = Instant::now();
    run("mkfs.erofs", &["--quiet", image, tree.to_str().unwrap()]);
    let mounted = run_if("mount", &["-t", "erofs", image, at]);
    let took = began.elapsed();
    if mounted {
        unmount(at, UnmountFlags::empty()).unwrap();
    } else {
        eprintln!("this kernel can't mount an EROFS image from a file");
    }
    fs::remove_dir(at).unwrap();
    fs::remove_file(image).unwrap();
    if mounted { vec![(Row::other("publish-cold", name, "EROFS image"), took)] } else { vec![] }
}

/// What other drivers do for each volume: a root, the closure asked of Nix, all of it copied, its database dumped and
/// loaded, a link, a mount.
fn copied(lab: &Lab, closure: &Closure) -> Measured {
    let name = closure.size.name;
    let (volume, at) = (Path::new("/nix/copied"), lab.target("copied"));
    let (store, state) = (volume.join("store"), volume.join("var/nix"));
    fs::create_dir(&at).unwrap();
    let began = Instant::now();
    fs::create_dir_all(&store).unwrap();
    fs::create_dir_all(state.join("gcroots")).unwrap();
    let root = &closure.variants[0];
    let link = lab.path("copied-root");
    run("nix-store", &["--realise", root, "--add-root", link.to_str().unwrap()]);
    let paths = run("nix-store", &["--query", "--requisites", root]);
    let paths: Vec<_> = paths.lines().collect();
    let mut copy = vec!["--archive", "--hard-links"];
    copy.extend(&paths);
    copy.push(store.to_str().unwrap());
    run("rsync", &copy);
    let dump = lab.path("copied-dump");
    let dumped = Command::new("nix-store")
        .arg("--dump-db")
        .args(&paths)
        .stdout(File::create(&dump).unwrap())
        .status();
    assert!(dumped.unwrap().success());
    let loaded = Command::new("nix-store")
        .arg("--load-db")
        .env("NIX_STATE_DIR", &state)
        .stdin(File::open(&dump).unwrap())
        .status();
    assert!(loaded.unwrap().success());
    std::os::unix::fs::symlink(root, state.join("gcroots/result")).unwrap();
    run("mount", &["--bind", "-o", "ro", volume.to_str().unwrap(), at.to_str().unwrap()]);
    let mounted = Instant::now();
    run("umount", &[at.to_str().unwrap()]);
    run("rm", &["-rf", volume.to_str().unwrap(), at.to_str().unwrap(), link.to_str().unwrap()]);
    let unmounted = mounted.elapsed();
    rustix::fs::syncfs(File::open("/nix").unwrap()).unwrap();
    vec![
        (Row::other("publish-warm", name, "nix, rsync, load-db"), mounted - began),
        (Row::other("unpublish", name, "nix, rsync, load-db"), unmounted),
    ]
}

/// Its standard output; it must succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn run_if(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).stdin(Stdio::null()).status().unwrap().success()
}

fn link(from: &Path, to: &Path) {
    if !fs::symlink_metadata(from).unwrap().is_dir() {
        return fs::hard_link(from, to).unwrap();
    }
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        link(&entry.path(), &to.join(entry.file_name()));
    }
}
