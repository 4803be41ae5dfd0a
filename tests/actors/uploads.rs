//! Uploads: what goes to the cache, when, and that no volume waits for it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix_csi::actors::node::NodeActors;
use nix_csi::actors::uploads::{UploadSummary, UploadsHandle, UploadsReport};
use nix_csi::model::{Source, StorePath};
use nix_csi::nix::{Origin, PushError};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::time::{Instant, sleep};

use crate::world::{REFRESH, UPLOAD_ATTEMPTS, World, id, request, with_world, with_world_for};

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

fn handle(actors: &NodeActors) -> &UploadsHandle {
    actors.uploads.as_ref().unwrap()
}

async fn report(world: &World) -> UploadsReport {
    handle(&world.actors).list().await.unwrap()
}

/// Publishes a closure that has to be built; its root.
async fn built(world: &World, name: &str) -> StorePath {
    let source = world.buildable(name);
    world.publish(name, &source).await.unwrap();
    world.nix.add_closure(name, 3).unwrap()
}

async fn one(world: &World) -> UploadSummary {
    let report = report(world).await;
    assert_eq!(report.uploads.len(), 1, "{report:?}");
    report.uploads[0].clone()
}

fn goes_away(world: &World) {
    let away = || PushError::Temporary { cause: "nobody answers".to_owned() };
    world.nix.answer_pushes(move |_| Some(away()));
}

fn says_no(world: &World) {
    let refused = || PushError::Refused { cause: "not signed".to_owned() };
    world.nix.answer_pushes(move |_| Some(refused()));
}

/// Refuses every push with this path.
fn refusing(bad: &StorePath) -> impl Fn(&[StorePath]) -> Option<PushError> + use<> {
    let bad = bad.clone();
    move |paths| {
        let refused = || PushError::Refused { cause: "not signed".to_owned() };
        paths.contains(&bad).then(refused)
    }
}

fn assert_nothing_kept(world: &World) {
    assert!(world.names("uploads").is_empty(), "{:?}", world.names("uploads"));
    assert!(world.names("roots/uploads").is_empty(), "{:?}", world.names("roots/uploads"));
}

#[tokio::test(start_paused = true)]
async fn what_is_built_arrives_once_and_leaves_nothing_behind() {
    with_world(|world| async move {
        let source = world.buildable("app");
        for n in 0..5 {
            world.publish(&format!("v{n}"), &source).await.unwrap();
        }
        let other = world.nix.add_closure("fetched", 2).unwrap();
        let fetched = Source::NixExpr("fetched".to_owned());
        world.nix.answer(fetched.clone(), other.clone(), Origin::Substituted);
        world.publish("other", &fetched).await.unwrap();
        seconds(5).await;
        let mut pushed = world.nix.pushed();
        pushed.sort();
        let mut expected = vec![world.nix.add_closure("app", 3).unwrap(), other];
        expected.sort();
        assert_eq!(pushed, expected);
        assert_nothing_kept(&world);
        let report = report(&world).await;
        assert_eq!((report.waiting, report.sending, report.dead), (0, 0, 0));
        assert_eq!(report.destination, "ssh-ng://cache");
    })
    .await;
}

/// What was in the store may be new to the cache, but not a second time.
#[tokio::test(start_paused = true)]
async fn what_was_there_is_offered_once_and_what_is_built_anew_again() {
    with_world(|world| async move {
        let path = world.nix.add_closure("there", 2).unwrap();
        let source = Source::NixExpr("there".to_owned());
        for (n, origin) in [Origin::Present, Origin::Present, Origin::Built].into_iter().enumerate()
        {
            world.nix.answer(source.clone(), path.clone(), origin);
            let name = format!("v{n}");
            world.publish(&name, &source).await.unwrap();
            world.unpublish(&name).await.unwrap();
            // Until its view is gone, and what the source means is forgotten.
            seconds(3600).await;
            let expected = [1, 1, 2][n];
            assert_eq!(world.nix.pushed().len(), expected, "after {origin:?}");
        }
    })
    .await;
}

/// A node that fetched from the cache has nothing that the cache lacks, however the cache came by it.
#[tokio::test(start_paused = true)]
async fn what_the_cache_had_is_not_offered_to_it() {
    with_world(|world| async move {
        let path = world.nix.add_closure("there", 2).unwrap();
        let source = Source::NixExpr("there".to_owned());
        for (n, origin) in [Origin::Substituted, Origin::Built].into_iter().enumerate() {
            world.nix.answer_from_cache(source.clone(), path.clone(), origin);
            let name = format!("v{n}");
            world.publish(&name, &source).await.unwrap();
            world.unpublish(&name).await.unwrap();
            seconds(3600).await;
        }
        world.nix.answer(source.clone(), path.clone(), Origin::Present);
        world.publish("present", &source).await.unwrap();
        world.unpublish("present").await.unwrap();
        seconds(3600).await;
        assert!(world.nix.pushed().is_empty(), "{:?}", world.nix.pushed());
        // Built here, it may be another one than the cache's.
        world.nix.answer(source.clone(), path.clone(), Origin::Built);
        world.publish("built", &source).await.unwrap();
        seconds(5).await;
        assert_eq!(world.nix.pushed(), [path]);
        assert_nothing_kept(&world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_one_is_sent_goes_together_and_mounts_do_not_wait() {
    with_world(|world| async move {
        let gate = world.nix.hold_pushes();
        let first = built(&world, "first").await;
        seconds(1).await;
        assert_eq!(world.nix.pushes(), [vec![first.clone()]]);
        for n in 0..70 {
            let before = Instant::now();
            built(&world, &format!("p{n}")).await;
            assert_eq!(before.elapsed(), Duration::ZERO, "a mount waited");
        }
        // Another source of the closure that is being sent.
        let again = Source::NixExpr("again".to_owned());
        let same = first.clone();
        world.nix.answer(again.clone(), same, Origin::Built);
        world.publish("again", &again).await.unwrap();
        seconds(1).await;
        let waiting = report(&world).await;
        assert_eq!((waiting.waiting, waiting.sending), (70, 1));
        assert_eq!(world.names("uploads").len(), 71);
        assert_eq!(world.names("roots/uploads").len(), 71);
        gate.release();
        seconds(1).await;
        let sizes: Vec<_> = world.nix.pushes().iter().map(Vec::len).collect();
        assert_eq!(sizes, [1, 64, 6]);
        assert_nothing_kept(&world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_is_away_is_not_hammered_and_gets_everything_later() {
    with_world(|world| async move {
        goes_away(&world);
        let path = built(&world, "early").await;
        seconds(8).await;
        for n in 0..10 {
            built(&world, &format!("p{n}")).await;
        }
        seconds(4).await;
        let pushes = world.nix.pushes().len();
        assert!(pushes <= 2, "the whole queue waits: {pushes}");
        let listed = report(&world).await;
        assert_eq!(listed.waiting, 11);
        let early = listed.uploads.iter().find(|upload| upload.path == path).unwrap();
        assert_eq!(early.last_error.as_deref(), Some("nobody answers"));
        assert!(early.attempts >= 1 && early.again_in.is_some(), "{early:?}");
        world.nix.take_pushes();
        seconds(30).await;
        assert_eq!(world.nix.pushed().len(), 11);
        assert_nothing_kept(&world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_bad_closure_does_not_hold_up_the_others() {
    with_world(|world| async move {
        let gate = world.nix.hold_pushes();
        built(&world, "first").await;
        seconds(1).await;
        let bad = built(&world, "bad").await;
        for n in 0..5 {
            built(&world, &format!("p{n}")).await;
        }
        world.nix.answer_pushes(refusing(&bad));
        gate.release();
        seconds(2).await;
        assert_eq!(world.nix.pushed().len(), 6, "{:?}", world.nix.pushes());
        let left = one(&world).await;
        assert_eq!((&left.path, left.state, left.attempts), (&bad, "waiting", 1));
        assert_eq!(left.last_error.as_deref(), Some("refused: not signed"));
        built(&world, "late").await;
        seconds(1).await;
        assert_eq!(world.nix.pushed().len(), 7);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_waits_for_a_person_and_is_forgotten_after_a_week() {
    with_world_for(Duration::from_hours(10 * 24), |world| async move {
        says_no(&world);
        let path = built(&world, "app").await;
        seconds(3600).await;
        let dead = one(&world).await;
        assert_eq!((dead.state, dead.attempts), ("dead", UPLOAD_ATTEMPTS));
        assert_eq!(world.nix.pushes().len(), UPLOAD_ATTEMPTS as usize);
        assert_eq!(world.names("roots/uploads"), [path.hash()]);

        assert_eq!(handle(&world.actors).retry(vec![]).await.unwrap(), 1);
        seconds(3600).await;
        assert_eq!(one(&world).await.state, "dead");
        world.nix.take_pushes();
        assert_eq!(handle(&world.actors).retry(vec![path.clone()]).await.unwrap(), 1);
        seconds(1).await;
        assert_eq!(world.nix.pushed(), [path]);
        assert_nothing_kept(&world);

        says_no(&world);
        built(&world, "other").await;
        seconds(3600).await;
        assert_eq!(one(&world).await.state, "dead");
        for _ in 0..8 {
            assert_eq!(world.names("uploads").len(), 1);
            seconds(20 * 3600).await;
        }
        seconds(20 * 3600).await;
        assert!(report(&world).await.uploads.is_empty());
        assert_nothing_kept(&world);
    })
    .await;
}

/// An outage is nobody's fault.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_cache_outlasts_a_day_without_it() {
    with_world_for(Duration::from_hours(48), |world| async move {
        goes_away(&world);
        let path = built(&world, "app").await;
        seconds(24 * 3600).await;
        let waits = one(&world).await;
        assert!(waits.state == "waiting" && waits.attempts > 100, "{waits:?}");
        world.nix.take_pushes();
        seconds(400).await;
        assert_eq!(world.nix.pushed(), [path]);
    })
    .await;
}

/// A panic loses nothing: the records are read again.
#[tokio::test(start_paused = true)]
async fn after_a_panic_the_queue_is_read_again() {
    with_world(|world| async move {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = calls.clone();
        world.nix.answer_pushes(move |_| {
            assert!(counted.fetch_add(1, Ordering::Relaxed) > 0, "the first panics");
            None
        });
        let path = built(&world, "app").await;
        seconds(10).await;
        assert_eq!(calls.load(Ordering::Relaxed), 2);
        assert_eq!(world.nix.pushed(), [path]);
        assert_nothing_kept(&world);
    })
    .await;
}

/// Another driver on the same disk; what the first one was sending it sends.
#[tokio::test(start_paused = true)]
async fn a_restart_goes_on_with_what_is_on_disk() {
    with_world(|mut world| async move {
        let gate = world.nix.hold_pushes();
        let path = built(&world, "app").await;
        let gone = built(&world, "gone").await;
        // Their files are written meanwhile.
        seconds(1).await;
        let [record, root] = ["uploads", "roots/uploads"].map(|dir| world.dir.path().join(dir));
        fs::write(record.join(format!("{:0>32}.json", 1)), "{\"version\":").unwrap();
        fs::write(record.join("x.tmp"), "half").unwrap();
        std::os::unix::fs::symlink(path.to_string(), root.join(format!("{:0>32}", 2))).unwrap();
        std::os::unix::fs::symlink(path.to_string(), root.join(format!("{:0>32}", 1))).unwrap();
        fs::remove_file(root.join(path.hash())).unwrap();
        // Nothing of the world's holds the second.
        fs::remove_file(root.join(gone.hash())).unwrap();
        world.nix.forget(&gone);
        world.actors = world.restarted();
        world.nix.take_pushes();
        seconds(1).await;
        assert_eq!(report(&world).await.sending, 1);
        assert_eq!(world.names("roots/uploads"), [format!("{:0>32}", 1), path.hash().to_owned()]);
        gate.release();
        seconds(1).await;
        assert!(world.nix.pushed().contains(&path));
        assert!(!world.nix.pushed().contains(&gone));
        let kept = report(&world).await;
        assert_eq!(kept.unreadable.len(), 1, "{kept:?}");
        assert_eq!(world.names("uploads"), [format!("{:0>32}.json", 1)]);
        assert_eq!(world.names("roots/uploads"), [format!("{:0>32}", 1)]);
    })
    .await;
}

/// A collector that runs at any moment finds the closure held: by the build's root, then by our own.
#[tokio::test(start_paused = true)]
async fn a_collector_does_not_take_what_waits() {
    with_world(|world| async move {
        goes_away(&world);
        let path = built(&world, "app").await;
        seconds(1).await;
        world.unpublish("app").await.unwrap();
        let roots = world.dir.path().join("roots/uploads");
        world.nix.collect_garbage(&[&roots]).unwrap();
        assert!(world.nix.is_valid(&path));
        world.nix.take_pushes();
        seconds(60).await;
        assert_eq!(world.nix.pushed(), std::slice::from_ref(&path));
        world.nix.collect_garbage(&[&roots]).unwrap();
        assert!(!world.nix.is_valid(&path));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_derivation_goes_up_beside_what_was_built_from_it() {
    with_world(|mut world| async move {
        world.uploads_derivations();
        let mut gate = Some(world.nix.hold_pushes());
        let source = world.buildable("app");
        let path = built(&world, "app").await;
        let derivation = world.nix.derivation(&source).unwrap();
        seconds(1).await;
        // Evaluated once more, while it waits and when it is up.
        for published in ["waits", "up"] {
            world.nix.answer(source.clone(), path.clone(), Origin::Present);
            seconds(2 * REFRESH.as_secs()).await;
            world.publish(published, &source).await.unwrap();
            if published == "waits" {
                assert_eq!(report(&world).await.uploads.len(), 2);
                gate.take().unwrap().release();
            }
            seconds(1).await;
            let mut pushed = world.nix.pushed();
            pushed.sort();
            let mut expected = [path.clone(), derivation.clone()];
            expected.sort();
            assert_eq!(pushed, expected, "{published}");
            assert_nothing_kept(&world);
        }
    })
    .await;
}

/// First by the build's root, however long the uploader takes, then by its own.
#[tokio::test(start_paused = true)]
async fn a_collector_does_not_take_a_derivation_that_waits() {
    with_world(|mut world| async move {
        let dir = world.dir.path().to_owned();
        seconds(1).await;
        // A record that is read until its writer is gone.
        let record = dir.join("uploads").join(format!("{:0>32}.json", 1));
        mknodat(CWD, &record, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let slow = fs::File::options().read(true).write(true).open(&record).unwrap();
        world.uploads_derivations();
        let path = built(&world, "app").await;
        let derivation = world.nix.derivation(&Source::NixExpr("app".to_owned())).unwrap();
        let roots = ["roots/builds", "roots/uploads"].map(|sub| dir.join(sub));
        let collect = || world.nix.collect_garbage(&roots.each_ref().map(|r| &**r)).unwrap();
        assert!(world.names("roots/uploads").is_empty());
        collect();
        assert!(world.nix.is_valid(&derivation), "the build's root is gone");
        goes_away(&world);
        // Nobody else may wait for a writer of it.
        fs::remove_file(&record).unwrap();
        drop(slow);
        seconds(1).await;
        assert!(world.names("roots/builds").is_empty());
        collect();
        assert!(world.nix.is_valid(&derivation) && world.nix.is_valid(&path));
        world.nix.take_pushes();
        seconds(60).await;
        assert!(world.nix.pushed().contains(&derivation), "{:?}", world.nix.pushed());
        collect();
        assert!(!world.nix.is_valid(&derivation));
    })
    .await;
}

/// A closure that went away all the same is nothing to upload, and the others go.
#[tokio::test(start_paused = true)]
async fn what_is_gone_is_left_out() {
    with_world(|world| async move {
        let gate = world.nix.hold_pushes();
        built(&world, "first").await;
        seconds(1).await;
        let gone = built(&world, "gone").await;
        let other = built(&world, "other").await;
        seconds(1).await;
        world.nix.forget(&gone);
        gate.release();
        seconds(1).await;
        assert!(world.nix.pushed().contains(&other));
        assert_eq!(world.nix.pushed().len(), 2);
        assert_nothing_kept(&world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_push_end_and_cuts_off_one_that_does_not() {
    with_world(|world| async move {
        let gate = world.nix.hold_pushes();
        let path = built(&world, "app").await;
        seconds(1).await;
        let (began, grace) = (Instant::now(), Duration::from_secs(10));
        let release = async {
            seconds(3).await;
            gate.release();
        };
        tokio::join!(world.actors.flush(grace), release);
        assert_eq!(began.elapsed().as_secs(), 3);
        assert_eq!(world.nix.pushed(), [path]);
        // It starts no more of them.
        built(&world, "late").await;
        seconds(60).await;
        assert_eq!(world.nix.pushes().len(), 1);
        assert_eq!(world.names("uploads").len(), 1);
    })
    .await;
    with_world(|world| async move {
        let _gate = world.nix.hold_pushes();
        built(&world, "app").await;
        seconds(1).await;
        let began = Instant::now();
        world.actors.flush(Duration::from_secs(10)).await;
        assert_eq!(began.elapsed().as_secs(), 10);
        seconds(1).await;
        let left = one(&world).await;
        assert_eq!((left.state, left.attempts), ("waiting", 0), "that was no attempt");
        assert_eq!(world.names("uploads").len(), 1);
    })
    .await;
}

/// The last one that finds no room is dropped; its volume is mounted.
#[tokio::test(start_paused = true)]
async fn a_full_queue_drops_and_counts() {
    with_world(|world| async move {
        let _gate = world.nix.hold_pushes();
        let most = nix_csi::actors::uploads::MOST;
        let records = world.dir.path().join("uploads");
        let (path, source) = (world.nix.add_path("app", &[]).unwrap(), world.buildable("app"));
        world.nix.answer(source.clone(), path.clone(), Origin::Built);
        seconds(1).await;
        for n in 0..most {
            let path = StorePath::from_base_name(&format!("{n:0>32}-full")).unwrap();
            let record = format!(
                "{{\"version\":1,\"path\":\"{path}\",\"queued_at\":1,\"attempts\":0,\
                 \"last_error\":null,\"next_attempt\":null,\"dead\":false,\"dead_since\":null}}"
            );
            fs::write(records.join(format!("{}.json", path.hash())), record).unwrap();
            world.nix.make_valid(&path);
        }
        let actors = world.restarted();
        let dropped = || nix_csi::metrics::render().unwrap();
        let count = |text: String| {
            let line = text.lines().find(|l| l.starts_with("nixcsi_uploads_dropped_total "));
            line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        seconds(1).await;
        let before = count(dropped());
        assert_eq!(handle(&actors).list().await.unwrap().waiting + 64, most);
        assert_eq!(handle(&actors).list().await.unwrap().uploads.len(), 1000);
        actors.directory.publish(&id("app"), request("app", &source)).await.unwrap();
        seconds(1).await;
        assert_eq!(count(dropped()), before + 1);
        assert!(!world.names("uploads").contains(&format!("{}.json", path.hash())));
    })
    .await;
}
