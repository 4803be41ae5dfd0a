//! `kill -9` in the middle of a collection, over and over: what is held stays, and the next one goes on.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use crate::lab;
use crate::lab::{Lab, Volume, eventually, node_binary};
use crate::store::{Hanging, assert_shows, closure_of, garbage, hang, strays};
use crate::world::{EAGER, assert_sound, valid};

/// Paths of one round's garbage, and some derivations.
const GARBAGE: usize = 160;
/// Longer than a guard gives to what it guards.
const GUARDS_GRACE: Duration = Duration::from_secs(8);

/// When a collector dies.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// A command of Nix's with this option runs.
    Runs(&'static str),
    /// So many paths are gone.
    Gone(usize),
}

const MOMENTS: [Moment; 6] = [
    Moment::Runs("--print-roots"),
    Moment::Runs("--delete"),
    Moment::Gone(1),
    Moment::Gone(17),
    Moment::Gone(60),
    Moment::Gone(120),
];

impl Moment {
    fn wait(self, lab: &Lab, before: usize) {
        eventually(&format!("{self:?}"), || match self {
            Self::Runs(option) => {
                lab.processes().iter().any(|p| p.contains("nix-store ") && p.contains(option))
            }
            Self::Gone(count) => valid(lab).len() + count <= before,
        });
    }
}

/// What has to outlive every collection.
struct Held {
    volume: Volume,
    shown: BTreeSet<String>,
    rooted: BTreeSet<String>,
}

impl Held {
    fn all(&self) -> BTreeSet<String> {
        self.shown.union(&self.rooted).cloned().collect()
    }

    fn assert_is_there(&self, lab: &Lab) {
        assert_shows(lab, &self.volume, &self.shown);
        let valid = valid(lab);
        assert!(self.rooted.is_subset(&valid), "{valid:?}");
    }
}

/// A rooted closure, and another that only its mount holds.
async fn held(lab: &Lab) -> Held {
    let rooted = lab.closure(&["--argstr", "seed", "rooted"]);
    let mounted = lab.unrooted(&["--argstr", "seed", "mounted"]);
    let (shown, rooted) = (closure_of(lab, &mounted), closure_of(lab, &rooted));
    let volume = lab.volume("mounted", &[("storePath", &mounted)]);
    let node = lab.node(&["--gc-older-than", "1h"]).await;
    node.publish(&volume).await.unwrap();
    node.kill();
    assert_alone(lab);
    Held { volume, shown, rooted }
}

/// Soon the killed one has left no process.
fn assert_alone(lab: &Lab) {
    let killed = Instant::now();
    eventually("the end of all processes", || lab.processes().is_empty());
    assert!(killed.elapsed() < GUARDS_GRACE, "{:?}", killed.elapsed());
}

fn assert_clean(lab: &Lab, held: &Held) {
    assert_eq!(valid(lab), held.all());
    assert_eq!(strays(lab), [""; 0]);
    held.assert_is_there(lab);
    assert_sound(lab);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_node() {
    let lab = lab!();
    let held = held(&lab).await;
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        garbage(&lab, &format!("round{round}"), GARBAGE, 8);
        let before = valid(&lab).len();
        let node = lab.starting_node(EAGER);
        moment.wait(&lab, before);
        node.kill();
        let left = valid(&lab).len();
        assert!(left > held.all().len(), "{moment:?}: the collection was over");
        assert_alone(&lab);
        held.assert_is_there(&lab);
    }
    let node = lab.node(EAGER).await;
    eventually("all garbage to go", || valid(&lab) == held.all() && strays(&lab).is_empty());
    assert!(node.status().await.volumes.iter().all(|volume| volume.state == "mounted"));
    node.kill();
    assert_alone(&lab);
    assert_clean(&lab, &held);
}

fn one_shot(lab: &Lab, extra: &[&str]) -> Child {
    let mut command = lab.command(node_binary());
    command.args(["gc", "--older-than", "0s"]).args(extra).stdout(Stdio::null()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_persons_command() {
    let lab = lab!();
    let held = held(&lab).await;
    for (round, moment) in MOMENTS.into_iter().enumerate() {
        garbage(&lab, &format!("round{round}"), GARBAGE, 8);
        let before = valid(&lab).len();
        let mut command = one_shot(&lab, &[]);
        moment.wait(&lab, before);
        lab::signal_inside(&command, rustix::process::Signal::KILL);
        command.wait().unwrap();
        let left = valid(&lab).len();
        assert!(left > held.all().len(), "{moment:?}: the collection was over");
        assert_alone(&lab);
        held.assert_is_there(&lab);
    }
    assert!(one_shot(&lab, &[]).wait().unwrap().success());
    assert_clean(&lab, &held);
}

/// What ignores every request to end, too.
#[tokio::test(flavor = "multi_thread")]
async fn and_what_hangs_ends_with_the_collector() {
    let lab = lab!();
    lab.unrooted(&["--argstr", "seed", "dead"]);
    let hanging = Hanging::at(&lab, "--delete", "trap '' TERM INT HUP");
    let hangs = || eventually("a deletion to hang", || !hang(&lab).is_empty());
    let node = lab.starting_node(&[EAGER, &["--nix", &hanging.nix()]].concat());
    hangs();
    node.kill();
    assert_alone(&lab);
    let mut command = one_shot(&lab, &["--nix", &hanging.nix()]);
    hangs();
    lab::signal_inside(&command, rustix::process::Signal::KILL);
    command.wait().unwrap();
    assert_alone(&lab);
}
