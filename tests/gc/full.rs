//! A disk that is too full: what was used least recently goes, and what is in use never.

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Lab, until};
use crate::world::{change, change_in, valid};

const MARKS: &[&str] = &[
    "--gc-older-than",
    "100years",
    "--gc-high-watermark",
    "70",
    "--gc-low-watermark",
    "50",
    "--gc-grace",
    "1s",
    "--gc-look-interval",
    "100ms",
];

/// Some 10 MB.
fn closure(lab: &Lab, seed: &str) -> String {
    let size = ["--arg", "paths", "3", "--arg", "files", "10", "--arg", "bytes", "10000000"];
    lab.unrooted(&[&size[..], &["--argstr", "seed", seed]].concat())
}

/// Percent of `/nix`.
fn used(lab: &Lab) -> u64 {
    lab.inside(|| {
        let stat = rustix::fs::statvfs("/nix").unwrap();
        (stat.f_blocks - stat.f_bavail) * 100 / stat.f_blocks
    })
}

fn fill(lab: &Lab, bytes: &str) {
    lab.ok("fallocate", &["-l", bytes, "/nix/fill"]);
}

/// A machine whose `/nix` has 100 MB, and five closures in it.
async fn small_store(lab: &Lab) -> [String; 5] {
    lab.ok("mount", &["-t", "tmpfs", "-o", "size=100m,mode=755", "small", "/nix"]);
    lab.node(&[]).await.stop();
    let all = ["a", "b", "c", "d", "e"].map(|seed| closure(lab, seed));
    change_in(lab, "/nix/var/nix-csi/used.sqlite", "update born set at = 0");
    change(lab, "update ValidPaths set registrationTime = 1000");
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_recently_used_go_until_there_is_room() {
    let lab = lab!();
    let all = small_store(&lab).await;
    // In the order b, c, d, e, a: `a` was registered first, and used last.
    for (n, path) in all.iter().enumerate() {
        let at = if n == 0 { 9000 } else { 1000 + n };
        let closure =
            format!("update ValidPaths set registrationTime = {at} where path = '{path}'");
        change(&lab, &closure);
    }
    fill(&lab, "22M");
    let before = used(&lab);
    assert!(before > 70, "{before}");
    let node = lab.node(MARKS).await;
    until("the disk to be below the low mark", async || used(&lab) <= 50).await;
    let left = valid(&lab);
    let left: Vec<_> = all.iter().map(|path| left.contains(path)).collect();
    assert_eq!(left, [true, false, false, left[3], true], "{} %", used(&lab));
    // No further than needed: one closure is 10 %.
    assert!(used(&lab) > 38, "{} %", used(&lab));
    assert!(node.get("/readyz").contains("200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_everything_in_use_it_is_said_and_nothing_goes() {
    let lab = lab!();
    let all = small_store(&lab).await;
    let node = lab.node(MARKS).await;
    let volumes: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(n, path)| lab.volume(&format!("v{n}"), &[("storePath", path)]))
        .collect();
    for volume in &volumes {
        node.publish(volume).await.unwrap();
    }
    fill(&lab, "35M");
    until("the warning", async || node.log().contains("the store's file system is too full")).await;
    let ready = node.get("/readyz");
    assert!(ready.contains("200 OK") && ready.contains("too full ("), "{ready}");
    assert!(node.metrics().lines().any(|line| {
        line.strip_prefix("nixcsi_gc_lacking{unit=\"bytes\"} ")
            .is_some_and(|n| n.parse::<u64>().unwrap() > 10_000_000)
    }));
    // What needs more than there is fails, and says what it is about.
    let text = "derivation { name = \"large\"; system = builtins.currentSystem; \
                builder = \"/bin/sh\"; PATH = \"/bin:/usr/bin\"; \
                args = [ \"-c\" \"head -c 20000000 /dev/zero > $out\" ]; }";
    let large = lab.volume("large", &[("nixExpr", text)]);
    let error = node.publish(&large).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.message().contains("no space left on the store's file system"), "{error}");
    assert!(error.message().contains("nix-csi gc --dry-run"), "{error}");
    let left = valid(&lab);
    assert!(all.iter().all(|path| left.contains(path)));
    for volume in &volumes {
        lab.ok(
            "sh",
            &["-ec", "find $0 -type f -exec cat {} + > /dev/null", volume.target.to_str().unwrap()],
        );
    }
    // Once two are unused, there is room for it.
    for volume in &volumes[..2] {
        node.unpublish(volume).await.unwrap();
    }
    until("the build to succeed", async || node.publish(&large).await.is_ok()).await;
    let left = valid(&lab);
    assert!(all[2..].iter().all(|path| left.contains(path)));
}
