//! A target's parents are swapped for symlinks, as fast as the kernel lets somebody.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use inotify::{Inotify, WatchMask};
use nix_csi::grpc::client::Code;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::lab::{Lab, Node, Pace, Volume};
use crate::planted;

const WORKERS: usize = 4;

/// Mounts, and files with what is in them, below a directory.
fn below(lab: &Lab, dir: &Path) -> BTreeSet<String> {
    let mounts = "cut -d' ' -f5 /proc/self/mountinfo | grep -F \"$0\"; find \"$0\" -ls; find \"$0\" -type f -exec cat {} +";
    let said = lab.run("sh", &["-c", mounts, dir.to_str().unwrap()]);
    String::from_utf8(said.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Publishes and unpublishes one volume again and again: how often it was mounted, and refused.
async fn come_and_go(node: &Node, volume: &Volume, left: &AtomicUsize) -> (usize, usize) {
    let (mut mounted, mut refused) = (0, 0);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        for done in [node.publish(volume).await, node.unpublish(volume).await] {
            match done {
                Ok(()) => mounted += 1,
                Err(status) => {
                    // A symlink, or something that was there a moment ago and is again.
                    let expected =
                        [Code::InvalidArgument, Code::Unavailable, Code::FailedPrecondition];
                    assert!(expected.contains(&status.code()), "{status}");
                    refused += 1;
                }
            }
        }
    }
    (mounted, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn parents_that_are_swapped_for_symlinks_lead_nowhere() {
    let lab = planted!();
    let closure = lab.closure(&["--arg", "paths", "2"]);
    let node = lab.node(&["--gc-older-than", "1h"]).await;
    let (pod, other, outside) = (lab.target("pod"), lab.target("other"), lab.path("outside"));
    let names: Vec<_> = (0..WORKERS).map(|n| format!("v{n}")).collect();
    for name in &names {
        fs::create_dir_all(pod.join(name)).unwrap();
        // Somebody else's mount where the target would be, and where only its parent is.
        let at = outside.join(name);
        fs::create_dir_all(&at).unwrap();
        if name == "v0" || name == "v1" {
            let mount = at.join("mount");
            fs::create_dir(&mount).unwrap();
            let mount = mount.to_str().unwrap();
            lab.ok("sh", &["-euc", "mount -t tmpfs precious $0; echo kept > $0/file", mount]);
        }
    }
    // Told of whatever is made or removed, also for a moment.
    let mut touched = Inotify::init().unwrap();
    for dir in names.iter().map(|name| outside.join(name)).chain([outside.clone()]) {
        let mask = WatchMask::CREATE | WatchMask::DELETE | WatchMask::MOVE;
        touched.watches().add(dir, mask | WatchMask::ATTRIB).unwrap();
    }
    symlink(&outside, &other).unwrap();
    let before = below(&lab, &outside);
    assert!(before.contains("kept"), "{before:?}");

    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // With real times all of them.
    let rounds = if Pace::of_this_run().seconds(60).as_secs() > 1 { 10_000 } else { 1_000 };
    let left = AtomicUsize::new(rounds);
    let swapper = {
        let (stop, swaps, pod, other) = (stop.clone(), swaps.clone(), pod.clone(), other.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &pod, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let volumes: Vec<_> = names
        .iter()
        .map(|name| {
            let volume = lab.volume(name, &[("storePath", &closure)]);
            Volume { target: pod.join(name).join("mount"), ..volume }
        })
        .collect();
    let workers = volumes.iter().map(|volume| come_and_go(&node, volume, &left));
    let done = futures::future::join_all(workers).await;
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    let sum = |of: fn(&(usize, usize)) -> usize| done.iter().map(of).sum::<usize>();
    let (mounted, refused) = (sum(|both| both.0), sum(|both| both.1));
    println!(
        "{rounds} rounds, {} swaps: {mounted} calls done, {refused} refused",
        swaps.load(Ordering::Relaxed)
    );
    assert!(mounted > rounds / 10 && refused > rounds / 10, "the race has two ends");

    assert_eq!(below(&lab, &outside), before);
    let mut buffer = [0; 4096];
    match touched.read_events(&mut buffer) {
        Ok(events) => panic!("outside was touched: {:?}", events.collect::<Vec<_>>()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
    if fs::symlink_metadata(&pod).unwrap().is_symlink() {
        renameat_with(CWD, &pod, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    }
    for volume in &volumes {
        node.unpublish(volume).await.unwrap();
    }
    let mounts = lab.ok("sh", &["-c", "cut -d' ' -f5 /proc/self/mountinfo"]);
    assert_eq!(
        mounts.lines().filter(|at| Path::new(at).starts_with(lab.path("targets"))).count(),
        0
    );
    assert!(node.status().await.volumes.is_empty());
    assert_eq!(below(&lab, &outside), before);
}
