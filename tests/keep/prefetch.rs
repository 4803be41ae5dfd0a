//! `nix-csi prefetch`.

use serde_json::Value;

use crate::lab;
use crate::lab::{Gate, Lab, NO_IDLE, Node, eventually, until};
use crate::program::{Said, client};
use crate::world::{collect, evaluations, filled, is_there, node, ready};

const ROOTS: &str = "/nix/var/nix/gcroots/nix-csi/views";

fn prefetch(lab: &Lab, node: &Node, args: &[&str]) -> Said {
    client(lab, node, ".", &[&["prefetch"], args].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_prefetched_mounts_warm_and_goes_when_it_idles() {
    let lab = lab!();
    let (mut cache, root) = filled(&lab).await;
    let fetched = node(&lab, &cache, &["--keep-idle", "1h"]).await;
    let said = prefetch(&lab, &fetched, &[&root]);
    let line = said.success();
    assert!(line.starts_with(&format!("{root} (5 paths, ")), "{line}");
    assert!(line.contains(", substituted) is warm after ") && !line.contains("kept"), "{line}");
    cache.kill().await;
    collect(&lab);
    let status = fetched.status().await;
    assert_eq!((status.views[0].users, status.kept.len()), (0, 0));
    let volume = lab.volume("one", &[("storePath", &root)]);
    fetched.publish(&volume).await.unwrap();
    assert_eq!(fetched.status().await.volumes[0].origin, "present");
    fetched.unpublish(&volume).await.unwrap();
    fetched.kill();

    let _idle = node(&lab, &cache, NO_IDLE).await;
    eventually("the view to go", || lab.names(ROOTS).is_empty());
    collect(&lab);
    assert!(!is_there(&lab, &root));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_keeps_outlives_the_node_until_it_is_dropped() {
    let lab = lab!();
    let (cache, root) = filled(&lab).await;
    let mut kept = node(&lab, &cache, NO_IDLE).await;
    // A local flake is locked as its caller; several are one after the other, and one that fails costs
    // nobody else.
    let dir = lab.flake("hi");
    let local = format!("{}#x", dir.display());
    let none = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-none";
    let args = [&root, none, "--flake-ref", &local, "--expr", "1 +", "--keep", "1h", "-o", "json"];
    let said = prefetch(&lab, &kept, &args);
    assert_eq!(said.code, Some(1), "{said:?}");
    let lines: Vec<Value> =
        said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(
        (&lines[0]["root"], &lines[0]["origin"]),
        (&root.as_str().into(), &"substituted".into())
    );
    assert!(lines[0]["keptUntil"].as_u64().unwrap() > 0);
    assert!(lines[1]["error"].as_str().unwrap().contains("-none"), "{}", lines[1]);
    assert_eq!(lines[2]["origin"], "built");
    assert!(lines[3]["error"].as_str().unwrap().contains("syntax error"), "{}", lines[3]);
    assert_eq!(said.err.matches("nix-csi: ").count(), 2, "{said:?}");
    let x = lines[2]["root"].as_str().unwrap().to_owned();

    assert_eq!(kept.stop(), Some(0));
    collect(&lab);
    let kept = node(&lab, &cache, NO_IDLE).await;
    let listed = ready(&kept, 2).await;
    assert!(listed.iter().all(|kept| !kept.setting && kept.until.is_some()));
    assert_eq!([&listed[0].root, &listed[1].root], [&root, &x]);
    let table = client(&lab, &kept, ".", &["status"]);
    let line = table.success().lines().find(|line| line.starts_with("kept warm: storePath"));
    let line = line.unwrap();
    assert!(line.contains(", ready, for ") && line.ends_with(" more"), "{line}");
    collect(&lab);
    assert!(is_there(&lab, &root) && is_there(&lab, &x));
    // No evaluation either: it was locked.
    let volume = lab.volume("x", &[("flakeRef", &listed[1].source)]);
    kept.publish(&volume).await.unwrap();
    assert_eq!(evaluations(&kept), 0);
    kept.unpublish(&volume).await.unwrap();

    assert_eq!(
        prefetch(&lab, &kept, &["--drop", none]).failure(),
        format!("{none} is not kept: `nix-csi status` lists what is")
    );
    let said = prefetch(&lab, &kept, &["--drop", &root, &x]);
    assert_eq!(said.success().lines().count(), 2);
    eventually("the views to go", || lab.names(ROOTS).is_empty());
    collect(&lab);
    assert!(!is_there(&lab, &root) && !is_there(&lab, &x));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_joins_a_pods_build_and_ends_with_its_caller() {
    let lab = lab!();
    let (joined, alone) = (Gate::new(&lab, "joined"), Gate::new(&lab, "alone"));
    let running = lab.node(&["--cancel-grace", "0s"]).await;
    let admin = running.admin.to_str().unwrap();
    let start = |expression: &str| {
        let mut command = lab.command(env!("CARGO_BIN_EXE_nix-csi"));
        command.args(["prefetch", "--expr", expression, "--admin-endpoint", admin]);
        command.spawn().unwrap()
    };
    let expression = joined.expression();
    let volume = lab.volume("pod", &[("nixExpr", &expression)]);
    let mut child = start(&expression);
    let open = async {
        joined.started().await;
        until("the pod to join", async || running.status().await.builds[0].volumes.len() == 2)
            .await;
        joined.open();
    };
    let (published, ()) = tokio::join!(running.publish(&volume), open);
    published.unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(joined.runs(), 1);

    let mut child = start(&alone.expression());
    alone.started().await;
    let is_client = |line: &String| line.contains("nix-csi prefetch ");
    let client = lab.processes().into_iter().find(is_client).unwrap();
    lab.kill(client.split(' ').next().unwrap());
    assert!(!child.wait().unwrap().success());
    until("the build to end", async || running.status().await.builds.is_empty()).await;
    eventually("its processes to end", || alone.processes(&lab).is_empty());
}
