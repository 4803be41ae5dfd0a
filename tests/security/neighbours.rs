//! Two builds at once, of two namespaces: one looks for the other.

use nix_csi::grpc::client::Code;

use crate::lab::until;
use crate::planted;
use crate::world::{MARK, SANDBOXED, builder, content, of_pod};

/// In the arguments of what the other build runs; the one that looks has a pattern for it.
const SLEEP: &str = "98765";

#[tokio::test(flavor = "multi_thread")]
async fn a_build_does_not_reach_another() {
    let lab = planted!();
    let node = lab.node(SANDBOXED).await;
    let script = format!(
        "for dir in /build /tmp /dev/shm; do echo {MARK} > $dir/secret; done
         while echo {MARK} | $b nc -l -p 7777; do :; done & export SECRET={MARK}; $b sleep {SLEEP}"
    );
    let other = of_pod(lab.volume("other", &[("nixExpr", &builder("other", "", &script))]), "db");
    let builders = || {
        let all = lab.processes();
        all.into_iter().filter(|line| line.contains(SLEEP)).collect::<Vec<_>>()
    };
    let user = |pid: &str| {
        let status = std::fs::read_to_string(lab.proc().join(pid).join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    // Of a shell the text goes on so as well, but for its first word. Its number alone: it may be
    // running or asleep when it is looked at.
    let sleeper = |all: &[String]| {
        let line = all.iter().find(|line| line.ends_with(&format!("/busybox sleep {SLEEP}")))?;
        line.split(' ').next().map(str::to_owned)
    };
    let looks = async {
        until("the other build", async || sleeper(&builders()).is_some()).await;
        let before = builders();
        let look = format!(
            "($b id -u
              $b grep -l 9876[5] /proc/[0-9]*/cmdline; $b grep -l {MARK} /proc/[0-9]*/environ
              $b cat /build/secret /tmp/secret /dev/shm/secret /proc/[0-9]*/root/build/secret
              $b timeout 2 $b nc 127.0.0.1 7777
              $b kill -9 -1) > $out 2>/dev/null; true"
        );
        let found = content(&lab, &node, &builder("look", "", &look)).await;
        let after = builders();
        let owner = sleeper(&after).map(|pid| user(&pid));
        node.unpublish(&other).await.unwrap();
        (before, found, after, owner)
    };
    let (published, (before, found, after, owner)) = tokio::join!(node.publish(&other), looks);
    assert_eq!(published.unwrap_err().code(), Code::Aborted);
    // Its own user, and nothing that is the other's.
    assert!(found.parse::<u32>().is_ok_and(|user| user != 0), "{found}");
    assert_ne!(found, owner.unwrap());
    assert_eq!(sleeper(&before).unwrap(), sleeper(&after).unwrap());
    until("the other build to end", async || builders().is_empty()).await;
}
