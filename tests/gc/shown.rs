//! What would go, and why the rest stays.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

use crate::lab;
use crate::lab::{Gate, Lab, NO_IDLE, until};
use crate::world::{change, gc};

fn would_go(lab: &Lab, older_than: &str) -> (BTreeSet<String>, Value) {
    let said = gc(lab, &["--dry-run", "--older-than", older_than, "-o", "json"]).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let paths = said["paths"].as_array().unwrap().iter();
    (paths.map(|path| path["path"].as_str().unwrap().to_owned()).collect(), said)
}

/// What Nix itself would delete, which for derivations is less: it keeps those of what is alive.
fn dead_to_nix(lab: &Lab) -> BTreeSet<String> {
    let options = ["--option", "keep-derivations", "false", "--option", "keep-outputs", "false"];
    let print = ["--gc", "--print-dead"];
    lab.ok("nix-store", &[&print[..], &options].concat()).lines().map(str::to_owned).collect()
}

#[test]
fn the_same_as_nix_would_delete_and_nothing_that_is_young() {
    let lab = lab!();
    let kept = lab.closure(&["--argstr", "seed", "kept"]);
    let gone = lab.unrooted(&["--argstr", "seed", "gone"]);
    let (paths, said) = would_go(&lab, "0s");
    assert_eq!(paths, dead_to_nix(&lab));
    assert!(paths.contains(&gone) && !paths.contains(&kept));
    assert_eq!(said["younger"], 0);
    assert!(said["frees"].as_u64().unwrap() > 0 && said["held"].as_u64().unwrap() > 1);

    let (paths, said) = would_go(&lab, "1h");
    assert!(paths.is_empty());
    assert!(said["younger"].as_u64().unwrap() > 0);
    // As if all had been there for long, but for one: what that one needs is as young.
    let now = format!("update ValidPaths set registrationTime = unixepoch() where path = '{gone}'");
    change(&lab, &format!("update ValidPaths set registrationTime = 1000; {now}"));
    let needed = lab.ok("nix-store", &["-qR", &gone]);
    let (paths, _) = would_go(&lab, "1h");
    assert!(needed.lines().all(|path| !paths.contains(path)), "{paths:?}");
    assert!(!paths.is_empty());
    // Nothing was changed by looking.
    lab.ok("nix-store", &["--check-validity", &gone]);
}

fn why(lab: &Lab, path: &str) -> String {
    gc(lab, &["--explain", path]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_is_told() {
    let lab = lab!();
    let rooted = lab.unrooted(&["--argstr", "seed", "rooted"]);
    std::os::unix::fs::symlink(&rooted, lab.path("nix/var/nix/gcroots/mine")).unwrap();
    let needed = lab.ok("nix-store", &["-q", "--references", &rooted]);
    let needed = needed.lines().find(|path| *path != rooted).unwrap();
    let said = why(&lab, needed);
    assert!(said.contains("the GC root /nix/var/nix/gcroots/mine\n"), "{said}");
    assert!(
        said.contains(&format!("  {rooted}\n")) && said.ends_with(&format!("{needed}\n")),
        "{said}"
    );

    // Nothing, and since when.
    let free = lab.unrooted(&["--argstr", "seed", "free"]);
    let said = why(&lab, &free);
    assert!(said.contains(" would go in ") && said.contains("nothing holds it"), "{said}");
    let said = gc(&lab, &["--explain", &free, "--older-than", "0s"]).unwrap();
    assert!(said.contains(" would go: nothing holds it"), "{said}");

    // A process that has it open.
    let file = lab.ok("find", &[&free, "-type", "f", "-print", "-quit"]);
    let mut open = lab.command("tail");
    let mut open = open.args(["-f", &file]).stdout(Stdio::null()).spawn().unwrap();
    lab::eventually("the process to be seen", || why(&lab, &free).contains("stays"));
    let said = why(&lab, &free);
    assert!(said.contains("process"), "{said}");
    open.kill().unwrap();
    open.wait().unwrap();

    // What the driver has: a mounted volume, and a build under way.
    let node = lab.node(NO_IDLE).await;
    let volume = lab.volume("v", &[("storePath", &free)]);
    node.publish(&volume).await.unwrap();
    let admin = format!("unix://{}", lab.path("run/admin.sock").display());
    let said = gc(&lab, &["--explain", &free, "--admin-endpoint", &admin]).unwrap();
    let user = format!("the volume {}, at {}\n", volume.id, volume.target.display());
    assert!(said.contains("the view ") && said.contains(&user), "{said}");
    // Without a node there is the root alone.
    let said = gc(&lab, &["--explain", &free, "--admin-endpoint", "unix:///nowhere"]).unwrap();
    assert!(said.contains("the view ") && !said.contains("the volume "), "{said}");
    let gate = Gate::new(&lab, "held");
    let building = lab.volume("b", &[("nixExpr", &gate.expression())]);
    let derivation = async {
        gate.started().await;
        let derivation = lab.ok("nix-instantiate", &["-E", &gate.expression()]);
        let said = why(&lab, &derivation);
        assert!(said.contains("the realisation ") || said.contains("has just made"), "{said}");
        gate.open();
    };
    let (published, ()) = tokio::join!(node.publish(&building), derivation);
    published.unwrap();

    // Kept warm, and on its way to a cache that does not take it.
    drop(node);
    let kept = lab.unrooted(&["--argstr", "seed", "kept"]);
    let node =
        lab.node(&[NO_IDLE, &["--keep", &kept, "--upload-command", "/bin/false"]].concat()).await;
    until("it to be kept", async || node.status().await.kept[0].state == "ready").await;
    let said = gc(&lab, &["--explain", &kept, "--admin-endpoint", &admin]).unwrap();
    let by = format!("kept warm by the node's settings: storePath {kept}\n");
    assert!(said.contains("the view ") && said.contains(&by), "{said}");
    let uploaded = lab.volume("u", &[("nixExpr", &gate.expression())]);
    node.publish(&uploaded).await.unwrap();
    let root = node
        .status()
        .await
        .volumes
        .iter()
        .find(|v| v.volume_id == uploaded.id)
        .unwrap()
        .root
        .clone();
    until("the upload to be queued", async || why(&lab, &root).contains("the upload ")).await;
    for volume in [&uploaded, &building] {
        node.unpublish(volume).await.unwrap();
    }
    until("the view to go", async || !why(&lab, &root).contains("the view ")).await;
    let said = why(&lab, &root);
    assert!(said.contains("the upload ") && said.contains("`nix-csi uploads` shows it"), "{said}");

    // What is no path of this store.
    let absent = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";
    let said = gc(&lab, &["--explain", absent]).unwrap_err();
    assert!(said.contains("is not valid in the store"), "{said}");
    let said = gc(&lab, &["--explain", "/tmp/x"]).unwrap_err();
    assert!(said.contains("--explain") && said.contains("/tmp/x"), "{said}");
    let said = gc(&lab, &["--dry-run", "--explain", absent]).unwrap_err();
    assert!(said.contains("cannot be used with"), "{said}");
}

/// As Nix would have made them, by rows alone.
#[test]
fn a_store_of_many_paths_is_planned_soon() {
    let lab = lab!();
    lab.ok("nix-store", &["--init"]);
    let rows = "
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 100000)
        insert into ValidPaths (path, hash, registrationTime, narSize)
        select printf('/nix/store/%032d-p', i), 'sha256:0', i, 1000 from n;
        insert or ignore into Refs
        select a.id, b.id from ValidPaths a, (select 1 k union select 2 union select 3 union select 5
            union select 7 union select 11 union select 13 union select 17 union select 19) s
        join ValidPaths b on b.id = a.id / (k + 1) where a.id > 20;";
    change(&lab, rows);
    let began = tokio::time::Instant::now();
    let (paths, _) = would_go(&lab, "1h");
    println!("{} paths in {:?}", paths.len(), began.elapsed());
    assert_eq!(paths.len(), 100_000);
}
