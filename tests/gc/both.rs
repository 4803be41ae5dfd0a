//! Two collectors of ours on one store.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::lab;
use crate::lab::{eventually, node_binary, signal_inside, until};
use crate::store::{Hanging, hang};
use crate::world::{EAGER, assert_sound, cycles, gc, valid};

/// A command that is stopped, and with it nsenter, which started it.
struct Stopped(Child);

impl Stopped {
    fn new(child: Child) -> Self {
        signal_inside(&child, Signal::STOP);
        Self(child)
    }
}

impl Drop for Stopped {
    /// Killed where it is: the kernel gives its right back.
    fn drop(&mut self) {
        signal_inside(&self.0, Signal::KILL);
        let _ = kill_process(Pid::from_child(&self.0), Signal::CONT);
        let _ = self.0.wait();
    }
}

const BUSY: &str = "another nix-csi collects garbage of this store at this moment: try again";

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_a_persons_command() {
    let lab = lab!();
    let there = lab.closure(&["--argstr", "seed", "there"]);
    let gone = lab.unrooted(&["--argstr", "seed", "gone"]);
    let hanging = Hanging::at(&lab, "--print-roots", ":");
    let mut command = lab.command(node_binary());
    let args = ["gc", "--older-than", "0s", "--nix", &hanging.nix()];
    let command = command.args(args).stdout(Stdio::null()).spawn().unwrap();
    eventually("the command to have the lock", || !hang(&lab).is_empty());
    let stopped = Stopped::new(command);

    let node = lab.node(EAGER).await;
    until("the node to find it busy", async || cycles(&node, "busy") > 2).await;
    assert!(node.log().contains("another collector of this store is at work"), "{}", node.log());
    // That is no reason for worry.
    assert!(node.get("/readyz").ends_with("\r\n\r\nready\n"), "{}", node.get("/readyz"));
    let volume = lab.volume("v", &[("storePath", &there)]);
    node.publish(&volume).await.unwrap();
    node.unpublish(&volume).await.unwrap();
    assert_eq!(gc(&lab, &["--older-than", "0s"]).unwrap_err().trim(), format!("nix-csi: {BUSY}"));
    assert!(valid(&lab).contains(&gone));

    drop(stopped);
    until("the node to collect", async || !valid(&lab).contains(&gone)).await;
    assert_sound(&lab);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_command_tells_of_the_nodes_collection() {
    let lab = lab!();
    let gone = lab.unrooted(&["--argstr", "seed", "gone"]);
    let hanging = Hanging::at(&lab, "--delete", ":");
    let node = lab.node(&[EAGER, &["--nix", &hanging.nix()]].concat()).await;
    until("the node's deletion to hang", async || !hang(&lab).is_empty()).await;
    assert_eq!(gc(&lab, &["--older-than", "0s"]).unwrap_err().trim(), format!("nix-csi: {BUSY}"));
    // To look is free.
    let said = gc(&lab, &["--dry-run", "--older-than", "0s"]).unwrap();
    assert!(said.contains(&gone), "{said}");
    node.kill();
    eventually("the end of what hangs", || hang(&lab).is_empty());
    gc(&lab, &["--older-than", "0s"]).unwrap();
    assert!(!valid(&lab).contains(&gone));
    assert_sound(&lab);
}
