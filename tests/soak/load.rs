//! Volumes: published, read again and again, and unpublished.

use std::sync::Arc;
use std::time::Duration;

use nix_csi::grpc::client::Code;
use tokio::time::{Instant, interval_at};

use crate::lab::Volume;
use crate::sources::{self, Dice, FLAKES, SHARED};
use crate::world::World;

/// The longest of those that are there for a moment only.
const LITTLE: Duration = Duration::from_secs(3);
/// Between two readings of what stays.
const AGAIN: Duration = Duration::from_millis(500);

/// Volumes that are there for a moment.
pub(crate) async fn quick(world: Arc<World>, n: u64) {
    let mut dice = Dice::new(n);
    let mut round = 0;
    while world.goes_on() {
        round += 1;
        // One reading, or some.
        let hold = if dice.below(4) == 0 { LITTLE.mul_f64(dice.part(5)) } else { Duration::ZERO };
        volume(&world, &mut dice, &format!("q{n}-{round}"), hold).await;
    }
}

/// Volumes that see many collections.
pub(crate) async fn slow(world: Arc<World>, n: u64) {
    let longest = (world.time / 3).min(Duration::from_secs(40));
    let mut dice = Dice::new(n);
    let mut round = 0;
    while world.goes_on() {
        round += 1;
        let hold = longest.mul_f64(dice.part(4));
        volume(&world, &mut dice, &format!("s{n}-{round}"), hold).await;
    }
}

/// One from the beginning to the end.
pub(crate) async fn lasting(world: Arc<World>) {
    let expression = sources::own("lasting");
    let volume = world.lab.volume("lasting", &[("nixExpr", &expression)]);
    world.publish(&volume).await.unwrap();
    let rest = world.end.saturating_duration_since(Instant::now());
    hold(&world, &volume, rest).await;
}

async fn volume(world: &Arc<World>, dice: &mut Dice, name: &str, time: Duration) {
    let (key, value) = source(world, dice, name).await;
    let mut volume = world.lab.volume(name, &[(key, &value)]);
    volume.readonly = dice.below(3) > 0;
    match world.publish(&volume).await {
        Ok(()) => hold(world, &volume, time).await,
        Err(error) if key == "storePath" && error.code() == Code::NotFound => {
            world.note("a bare path was gone before its publish".to_owned());
        }
        Err(error) => panic!("publish of {key} {value}: {error}"),
    }
}

/// A key and its value.
async fn source(world: &Arc<World>, dice: &mut Dice, name: &str) -> (&'static str, String) {
    match dice.below(100) {
        0..25 => ("nixExpr", sources::own(name)),
        // It was there before, with luck: of this publisher or of another one.
        25..40 => ("nixExpr", sources::own(&format!("again-{}", dice.below(8)))),
        40..70 => ("nixExpr", sources::shared(dice.below(SHARED))),
        70..75 => ("flakeRef", sources::flake(&world.web, dice.below(FLAKES))),
        75..90 => {
            let n = dice.below(1 << 20);
            match world.earlier(n) {
                Some(path) => ("storePath", path.to_str().unwrap().to_owned()),
                None => ("nixExpr", sources::own(name)),
            }
        }
        _ => match world.build(sources::own(&format!("bare-{name}"))).await {
            Some(path) => ("storePath", path),
            None => ("nixExpr", sources::own(name)),
        },
    }
}

/// Reads until the time is up, and unpublishes.
async fn hold(world: &Arc<World>, volume: &Volume, time: Duration) {
    let end = Instant::now() + time;
    let own = volume.target.join("own");
    let writes = !volume.readonly;
    if writes {
        world.lab.inside(|| std::fs::write(&own, "own").unwrap());
    }
    let mut again = interval_at(Instant::now() + AGAIN, AGAIN);
    loop {
        let (reader, volume) = (world.clone(), volume.clone());
        let read = tokio::task::spawn_blocking(move || reader.read(&volume));
        read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        if Instant::now() >= end || !world.goes_on() {
            break;
        }
        again.tick().await;
    }
    if writes {
        world.lab.inside(|| assert_eq!(std::fs::read_to_string(&own).unwrap(), "own"));
    }
    world.unpublish(volume).await;
}
