//! What others do, without a driver around it: no connection, no record, no checks.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{UnmountFlags, mount_bind, unmount};
use tokio::time::Instant;

use crate::closures::Closure;
use crate::lab::Lab;
use crate::report::Row;

/// Trees of links for large closures take seconds each.
const TREES: usize = 3;

type Measured = Vec<(Row, Duration)>;

/// One bare bind mount, and its end.
pub fn bind(lab: &Lab, closure: &Closure) -> Measured {
    let name = closure.size.name;
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
        (Row::other("unpublish", name, "bind"), unmounted),
    ]
}

/// What costs more than a warm publish.
pub fn slow(lab: &Lab, closure: &Closure, round: usize) -> Measured {
    let mut all = bind_per_path(lab, closure);
    if round < TREES {
        all.extend(hard_links(lab, closure));
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

/// A tree with a hard link for each file, and one bind mount of it.
fn hard_links(lab: &Lab, closure: &Closure) -> Measured {
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
    fs::remove_dir_all(tree).unwrap();
    let unmounted = mounted.elapsed();
    // What is measured next must not wait for this one's writes.
    rustix::fs::syncfs(fs::File::open("/nix").unwrap()).unwrap();
    vec![
        (Row::other("publish-cold", name, "hard links"), mounted - began),
        (Row::other("unpublish-cold", name, "hard links"), unmounted),
    ]
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
