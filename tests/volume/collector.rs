//! Collectors and repairs of others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix_csi::grpc::client::Code;

use crate::lab;
use crate::lab::{Lab, Node, Volume};
use crate::world::{NO_IDLE, assert_nothing_left, assert_shows_paths, closure_of, until};

fn args_of(seed: &str) -> [&str; 9] {
    ["--argstr", "seed", seed, "--arg", "files", "10", "--arg", "bytes", "70000"]
}

/// A collector may take from Nix itself what it is making.
fn unrooted(lab: &Lab, seed: &str) -> String {
    let mut tries = (0..10).map(|_| lab.try_unrooted(&args_of(seed)));
    tries.find_map(Result::ok).expect("nix-build succeeds once in ten times")
}

/// Publish, read everything, unpublish, over and over; how often the path was gone. Without a root
/// it is made again then.
async fn use_closure(
    lab: &Lab,
    node: &Node,
    seed: &str,
    rounds: usize,
    root: Option<&str>,
) -> usize {
    let rooted = root.is_some();
    let paths = root.map(|root| closure_of(lab, root)).unwrap_or_default();
    let root = root.map_or_else(|| unrooted(lab, seed), str::to_owned);
    let mut gone = 0;
    for round in 0..rounds {
        let mut volume: Volume = lab.volume(&format!("{seed}-{round}"), &[("storePath", &root)]);
        volume.readonly = round % 3 != 0;
        match node.publish(&volume).await {
            Ok(()) => {}
            Err(error) if !rooted && error.code() == Code::NotFound => {
                gone += 1;
                unrooted(lab, seed);
                continue;
            }
            Err(error) => panic!("{error}"),
        }
        // An unrooted one's closure is asked of Nix while the mount must hold it.
        let all = if rooted { paths.clone() } else { closure_of(lab, &root) };
        assert_shows_paths(lab, &volume, &all);
        node.unpublish(&volume).await.unwrap();
    }
    gone
}

/// Paths come and go below the driver; what it shows stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_collector_takes_nothing_that_is_mounted() {
    let lab = lab!();
    let node = lab.node(NO_IDLE).await;
    let lasting = lab.unrooted(&[]);
    let mounted = lab.volume("lasting", &[("storePath", &lasting)]);
    node.publish(&mounted).await.unwrap();
    let paths = closure_of(&lab, &lasting);
    let rooted = lab.closure(&args_of("rooted"));
    let (done, collections) = (AtomicBool::new(false), AtomicUsize::new(0));
    let gone = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                lab.ok("nix-store", &["--gc"]);
                collections.fetch_add(1, Ordering::Relaxed);
            }
        });
        let handle = tokio::runtime::Handle::current();
        let used = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            tokio::task::block_in_place(|| {
                handle.block_on(async {
                    tokio::join!(
                        use_closure(&lab, &node, "rooted", 80, Some(&rooted)),
                        use_closure(&lab, &node, "a", 60, None),
                        use_closure(&lab, &node, "b", 60, None),
                    )
                })
            })
        }));
        done.store(true, Ordering::Relaxed);
        used.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    eprintln!("{} collections, {gone:?} publishes came too late", collections.into_inner());
    assert_shows_paths(&lab, &mounted, &paths);
    node.unpublish(&mounted).await.unwrap();
    assert_nothing_left(&lab);
}

/// What a repair does: a copy, renamed over the path.
fn replace(lab: &Lab, path: &str) {
    let script = "cp -a $0 $0.new && mv $0 $0.old && mv $0.new $0 && rm -rf $0.old";
    lab.ok("sh", &["-ec", script, path]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_replaced_below_a_mounted_view_is_told_and_avoided() {
    let lab = lab!();
    let root = lab.closure(&[]);
    let paths = closure_of(&lab, &root);
    let node = lab.node(&["--verify-interval", "200ms"]).await;
    let old = lab.volume("old", &[("storePath", &root)]);
    node.publish(&old).await.unwrap();
    let view = node.status().await.views.remove(0).view_id;
    replace(&lab, &root);

    until("the replaced path to be found", async || {
        node.status().await.views.iter().any(|view| !view.replaced.is_empty())
    })
    .await;
    let found = node.status().await.views;
    assert_eq!(found[0].replaced, [root.as_str()]);
    assert!(node.log().contains("store paths were replaced below a mounted view"));
    assert!(node.metrics().contains("nixcsi_view_paths_replaced_total 1\n"));

    let new = lab.volume("new", &[("storePath", &root)]);
    node.publish(&new).await.unwrap();
    assert_shows_paths(&lab, &new, &paths);
    let views = node.status().await.views;
    assert_eq!(views.len(), 2);
    assert!(views.iter().any(|v| v.view_id == view && v.users == 1));
    node.unpublish(&new).await.unwrap();
    node.kill();

    // A successor knows it too, before it serves the next volume.
    let node = lab.node(&["--verify-interval", "1h"]).await;
    node.publish(&new).await.unwrap();
    assert_shows_paths(&lab, &new, &paths);
    let users: Vec<_> = node.status().await.views;
    assert!(
        users.iter().any(|v| v.view_id == view && v.users == 1 && v.replaced == [root.clone()])
    );
    node.unpublish(&old).await.unwrap();
    node.unpublish(&new).await.unwrap();
}
