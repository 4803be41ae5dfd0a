//! What happens between a collection's steps, with delays that are put in.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::lab;
use crate::lab::{Gate, Lab, until};
use crate::world::{EAGER, assert_sound, cycles, gc, valid};

/// A directory with Nix's programs, of which `nix-store --delete` with this path among others waits until it
/// is let.
fn slow_to_delete(lab: &Lab, path: &str) -> String {
    let dir = lab.path("slow");
    fs::create_dir(&dir).unwrap();
    let at = dir.display();
    let find = |name: &str| lab.ok("sh", &["-c", "command -v $0", name]).trim().to_owned();
    let script = format!(
        "#!/bin/sh\n\
         case \" $* \" in *\" --delete \"*{path}*)\n\
         touch {at}/asked\n\
         while [ ! -e {at}/open ]; do sleep 0.02; done\n\
         esac\n\
         exec {} \"$@\"\n",
        find("nix-store")
    );
    for (name, text) in [
        ("nix-store", script),
        ("nix", format!("#!/bin/sh\nexec {} \"$@\"\n", find("nix"))),
        ("nix-daemon", format!("#!/bin/sh\nexec {} \"$@\"\n", find("nix-daemon"))),
    ] {
        fs::write(dir.join(name), text).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir.join("nix").to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_mounted_between_plan_and_deletion_stays() {
    let lab = lab!();
    let (mounted, gone) = (
        lab.unrooted(&["--argstr", "seed", "mounted"]),
        lab.unrooted(&["--argstr", "seed", "gone"]),
    );
    let nix = slow_to_delete(&lab, &mounted);
    let node = lab.node(&[EAGER, &["--nix", &nix]].concat()).await;
    let asked = lab.path("slow/asked");
    until("the deletion to be asked for", async || asked.try_exists().unwrap()).await;
    let volume = lab.volume("v", &[("storePath", &mounted)]);
    node.publish(&volume).await.unwrap();
    fs::write(lab.path("slow/open"), "").unwrap();
    until("the rest to go", async || !valid(&lab).contains(&gone)).await;
    assert!(valid(&lab).contains(&mounted));
    lab.ok(
        "sh",
        &["-ec", "find $0 -type f -exec cat {} + > /dev/null", volume.target.to_str().unwrap()],
    );
    // Some collections later, too.
    let before = cycles(&node, "ok");
    until("more collections", async || cycles(&node, "ok") > before + 2).await;
    assert!(valid(&lab).contains(&mounted));
    assert!(node.metrics().contains("nixcsi_gc_cycles_total{outcome=\"failed\"} 0\n"));
    assert_sound(&lab);
}

/// Nix's own builds hold their inputs; this is about what is evaluated, and what is made on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_build_whose_inputs_nothing_else_holds_goes_on() {
    let lab = lab!();
    let node = lab.node(EAGER).await;
    let (first, second) = (Gate::new(&lab, "first"), Gate::new(&lab, "second"));
    let volume = lab.volume("v", &[("nixExpr", &second.after(&first.expression()))]);
    let collects = async |lab: &Lab| {
        // Ours is at it all the while; others' is, too.
        gc(lab, &["--older-than", "0s"]).ok();
        lab.ok("nix-store", &["--gc"]);
        lab.ok("nix-store", &["--gc"]);
    };
    let let_go = async {
        first.started().await;
        collects(&lab).await;
        first.open();
        second.started().await;
        collects(&lab).await;
        second.open();
    };
    let (published, ()) = tokio::join!(node.publish(&volume), let_go);
    published.unwrap();
    assert_eq!((first.runs(), second.runs()), (1, 1));
    assert_eq!(lab.ok("cat", &[&format!("{}/var/result", volume.target.display())]), "second");
    assert_sound(&lab);
}
