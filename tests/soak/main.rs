//! A real node under everything at once: volumes come and go, builds, fetches, uploads, its own collector
//! with next to no patience, a foreign one, garbage that others make, and kills. `make soak MINUTES=n`; a
//! few seconds of it are a test like any other.
//!
//! No mount ever loses a file, the store and the node stay bounded, and in the end nothing is left.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../lab/mod.rs"]
mod lab;

mod end;
mod load;
mod outsiders;
mod samples;
mod sources;
mod summary;
mod tree;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::samples::Samples;
use crate::world::World;

/// Volumes that are there for a moment, and for many collections.
const QUICK: u64 = 6;
const SLOW: u64 = 3;

/// How long, and how often the node is killed meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    time: Duration,
    kill_every: Option<Duration>,
}

impl Plan {
    fn of_this_run() -> Self {
        let text =
            |name| std::env::var_os(name)?.into_string().ok().filter(|text| !text.is_empty());
        let number = |name| text(name).map(|text| text.parse::<f64>().expect(name));
        let time = number("NIX_CSI_SOAK_MINUTES").map_or(15.0, |minutes| minutes * 60.0);
        let kill_every = number("NIX_CSI_SOAK_KILL_EVERY").unwrap_or(60.0);
        Self {
            time: Duration::from_secs_f64(time),
            kill_every: (kill_every > 0.0).then(|| Duration::from_secs_f64(kill_every)),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_stays() {
    let lab = lab!();
    let plan = Plan::of_this_run();
    let world = Arc::new(World::new(lab, plan.time).await);
    let mut all = JoinSet::new();
    all.spawn(load::lasting(world.clone()));
    for n in 0..QUICK {
        all.spawn(load::quick(world.clone(), n));
    }
    for n in 0..SLOW {
        all.spawn(load::slow(world.clone(), QUICK + n));
    }
    all.spawn(outsiders::garbage(world.clone()));
    all.spawn(outsiders::collector(world.clone()));
    if let Some(every) = plan.kill_every {
        all.spawn(outsiders::kills(world.clone(), every));
    }
    let samples = tokio::spawn(Samples::take(world.clone()));
    ended(&world, all).await;
    let samples = samples.await.unwrap();
    let (mut last, ending) = (JoinSet::new(), world.clone());
    last.spawn_blocking(move || end::nothing_stays(&ending));
    ended(&world, last).await;
    println!("{}\n{samples}", world.summary().await);
    world.assert_well().await;
    samples.assert_bounded();
}

/// The first that panics ends the test, with the node's log.
async fn ended(world: &World, mut all: JoinSet<()>) {
    while let Some(one) = all.join_next().await {
        if let Err(error) = one {
            world.give_up().await;
            std::panic::resume_unwind(error.into_panic());
        }
    }
}
