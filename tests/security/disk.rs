//! Evaluations that write ever more, and what they leave.

use std::fs;

use nix_csi::grpc::client::Code;

use crate::lab::{Lab, Node, names, until};
use crate::planted;
use crate::private::publish;
use crate::taken_over::{TAKEN, TENANTS, weak_node};
use crate::world::{MARK, builder};

const TOLD: &str = "what evaluations of its namespace fetch and make takes more than 64 MiB on disk (the operator \
                    raises --eval-disk)";

async fn node(lab: &Lab) -> Node {
    weak_node(lab, &["--eval-disk", "64MiB", "--eval-timeout", "10m"]).await
}

/// It is ended before its time is over, and the next one of the namespace has room.
async fn ends(there: (&Lab, &Node), namespace: &str, text: &str) {
    let status = publish(there, namespace, ("nixExpr", text)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{text}: {status}");
    assert!(status.message().ends_with(TOLD), "{text}: {status}");
    let next = builder("next", "", "echo next > $out");
    assert_eq!(publish(there, namespace, ("nixExpr", &next)).await.unwrap(), "next\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evaluation_that_fills_the_disk_is_ended_and_others_go_on() {
    let lab = planted!();
    let node = node(&lab).await;
    let there = (&lab, &node);
    // Of files in the store, in the home, and one.
    let files = "let text = builtins.concatStringsSep \"\" (builtins.genList (_: \"0123456789abcde\\n\") 65536); in \
        builtins.foldl' (all: n: builtins.seq (builtins.toFile \"x\" (text + toString n)) all) null \
        (builtins.genList (n: n) 256)";
    // Four times what it may have, and then it waits a minute to be ended.
    let home = format!(
        "{TAKEN}for n in $(seq 256); do head -c 1M /dev/zero > $HOME/$n; done; exec sleep 60"
    );
    let one = format!("{TAKEN}exec dd if=/dev/zero of=$HOME/one bs=1M count=256");
    let empty = format!("{TAKEN}cd $HOME; seq 65536 | xargs touch; exec sleep 60");
    let greedy = async {
        ends(there, "other", files).await;
        for text in [&home, &one, &empty] {
            ends(there, "other", text).await;
            ends(there, "open", text).await;
        }
    };
    let others = async {
        let mut made = 0;
        for n in 0.. {
            let text = builder(&format!("others-{n}"), "", "echo others > $out");
            assert_eq!(publish(there, "web", ("nixExpr", &text)).await.unwrap(), "others\n");
            made = n;
        }
        made
    };
    tokio::select! {
        () = greedy => {}
        made = others => panic!("{made}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn caches_that_have_grown_large_are_gone_once_nobody_uses_them() {
    let lab = planted!();
    let node = node(&lab).await;
    let there = (&lab, &node);
    let text = builder("made", "", "echo made > $out").replace('\'', "'\\''");
    let leaves = |megabytes: usize, name: &str| {
        let write = format!("head -c {megabytes}000000 /dev/zero > $HOME/{name}");
        format!("{TAKEN}{write}; echo {MARK} > $HOME/mark; run '{text}' \"$@\"")
    };
    for namespace in ["open", "other"] {
        let marks = || {
            let dirs =
                names(&lab.path(TENANTS)).into_iter().map(|name| lab.path(TENANTS).join(name));
            let homes = dirs.flat_map(|dir| [dir.join("mark"), dir.join("home/mark")]);
            homes.filter(|mark| fs::exists(mark).unwrap()).count()
        };
        let made = async |megabytes, name| {
            let text = leaves(megabytes, name);
            assert_eq!(publish(there, namespace, ("nixExpr", &text)).await.unwrap(), "made\n");
        };
        made(10, "little").await;
        assert_eq!(marks(), 1);
        made(49, "more").await;
        until("it to be gone", async || marks() == 0).await;
    }
}
