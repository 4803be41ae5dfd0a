//! The collector: what it takes and in which order, what stays, and what happens when something hangs.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix_csi::actors::gc::used::uses_in;
use nix_csi::health::Condition;
use nix_csi::model::StorePath;
use nix_csi::mount::fake::Op;
use nix_csi::nix::fake::Call;
use nix_csi::nix::{Freed, NixError, Space};
use tokio::time::sleep;

use crate::world::{
    GC_GRACE, GC_INTERVAL, GC_LOOK, GC_OLDER_THAN, GC_STEP, KEEP_IDLE, Settings, World, clock,
    store_path, with_looks,
};

/// More than the jitter of an interval.
const SOON: Duration = Duration::from_mins(20);

fn space(free_bytes: u64) -> Space {
    Space { bytes: 1_000_000, free_bytes, inodes: 1_000_000, free_inodes: 900_000 }
}

async fn with_world<F: Future>(test: impl FnOnce(World) -> F) {
    with_looks(Duration::from_hours(24), GC_LOOK, test).await;
}

/// A path that nothing refers to.
fn lone(world: &World, name: &str) -> StorePath {
    world.nix.add_path(name, &[]).unwrap()
}

/// Mounts it for a moment.
async fn use_now(world: &World, path: &StorePath) {
    world.publish("use", &store_path(path)).await.unwrap();
    world.unpublish("use").await.unwrap();
}

fn frees(world: &World, path: &StorePath, bytes: u64) {
    world.nix.set_freed(path, Freed { bytes, inodes: 1, helps: 0 });
}

/// None is under way, and the next is not due for minutes.
async fn has_just_collected(world: &World) -> bool {
    let status = world.actors.gc.status().await.unwrap();
    status.step.is_none() && status.last.is_some_and(|(ago, _)| ago < GC_INTERVAL / 2)
}

fn failed() -> NixError {
    NixError::Command { what: "nix-store --delete".into(), detail: "no".into() }
}

#[tokio::test(start_paused = true)]
async fn what_was_used_lately_stays_with_all_that_it_needs() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let (used, unused) = (
            world.nix.add_closure("used", 3).unwrap(),
            world.nix.add_closure("unused", 3).unwrap(),
        );
        let needed = world.nix.add_path("used-1.txt", &[]).unwrap();
        // The index is new: nothing is known to be old, whatever the registration says.
        sleep(GC_OLDER_THAN.saturating_sub(GC_INTERVAL)).await;
        assert!(world.nix.is_valid(&unused));
        use_now(&world, &used).await;
        sleep(2 * SOON).await;
        assert!(!world.nix.is_valid(&unused), "unused for an hour");
        assert!(world.nix.is_valid(&used) && world.nix.is_valid(&needed));
        sleep(KEEP_IDLE + GC_OLDER_THAN + SOON).await;
        assert!(!world.nix.is_valid(&used) && !world.nix.is_valid(&needed));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_mounted_stays_for_ever_and_counts_from_its_end() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let path = world.nix.add_closure("mounted", 3).unwrap();
        world.publish("a", &store_path(&path)).await.unwrap();
        sleep(10 * GC_OLDER_THAN).await;
        assert!(world.nix.is_valid(&path));
        // It is noted all the while: a machine may stop at any time.
        let uses = uses_in(&world.dir.path().join("used.sqlite")).unwrap().unwrap();
        assert!(clock()() - uses.of(&path, 0) < SOON.as_secs());
        world.unpublish("a").await.unwrap();
        sleep(KEEP_IDLE + GC_OLDER_THAN / 2).await;
        assert!(world.nix.is_valid(&path), "used until half an hour ago");
        sleep(GC_OLDER_THAN).await;
        assert!(!world.nix.is_valid(&path));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn above_the_high_mark_the_least_recently_used_go_down_to_the_low_one() {
    with_world(|world| async move {
        let names = ["a", "b", "c", "d"];
        let paths = names.map(|name| lone(&world, name));
        for path in &paths {
            frees(&world, path, 30_000);
        }
        // In the order d, c, b, a.
        for path in paths.iter().rev() {
            use_now(&world, path).await;
            sleep(Duration::from_mins(1)).await;
        }
        sleep(GC_GRACE).await;
        assert!(paths.iter().all(|path| world.nix.is_valid(path)));
        world.nix.set_space(space(149_000));
        sleep(2 * GC_LOOK).await;
        // 51,000 are wanted: two of 30,000. The views that nobody used went first.
        let left = paths.each_ref().map(|path| world.nix.is_valid(path));
        assert_eq!(left, [true, true, false, false]);
        assert!(world.actors.views.list().await.is_empty());
        assert_eq!(world.health.overall().0, Condition::Ready);
        assert_eq!(world.nix.deletions().concat(), [paths[3].clone(), paths[2].clone()]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn with_everything_in_use_nothing_goes_and_it_is_said() {
    with_world(|world| async move {
        let (mounted, fresh) = (lone(&world, "mounted"), lone(&world, "fresh"));
        world.publish("a", &store_path(&mounted)).await.unwrap();
        sleep(GC_GRACE).await;
        use_now(&world, &fresh).await;
        // Nobody has it yet, as where a build of others goes on.
        let arrived = lone(&world, "arrived");
        world.nix.set_registered(&arrived, clock()());
        world.nix.set_space(space(10_000));
        sleep(2 * GC_LOOK).await;
        assert!([&mounted, &fresh, &arrived].iter().all(|path| world.nix.is_valid(path)));
        let (condition, reason) = world.health.overall();
        assert!(matches!(condition, Condition::Impaired(_)), "{condition:?}");
        assert!(reason.contains("too full (99 % of its bytes, 10 % of its inodes)"), "{reason}");
        // It is not tried at each look.
        let tries = world.nix.called(Call::Roots);
        sleep(Duration::from_mins(2)).await;
        assert!(world.nix.called(Call::Roots) - tries <= 5);
        // Once it may go, it does.
        sleep(GC_GRACE + 6 * GC_LOOK).await;
        assert!(world.nix.is_valid(&mounted) && !world.nix.is_valid(&fresh));
        world.nix.set_space(space(900_000));
        sleep(SOON).await;
        assert_eq!(world.health.overall().0, Condition::Ready);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_frees_nothing_is_left_unless_inodes_are_wanted() {
    with_world(|world| async move {
        let (shared, alone) = (lone(&world, "shared"), lone(&world, "alone"));
        world.nix.set_freed(&shared, Freed { bytes: 0, inodes: 1, helps: 0 });
        frees(&world, &alone, 100_000);
        sleep(Duration::from_mins(1)).await;
        use_now(&world, &alone).await;
        sleep(GC_GRACE + KEEP_IDLE).await;
        world.nix.set_space(space(140_000));
        sleep(2 * GC_LOOK).await;
        assert!(world.nix.is_valid(&shared) && !world.nix.is_valid(&alone));
        world.nix.set_space(Space { free_inodes: 149_999, ..space(900_000) });
        sleep(7 * GC_LOOK).await;
        assert!(!world.nix.is_valid(&shared));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_gives_little_by_itself_goes_with_what_gives_much() {
    with_world(|world| async move {
        // The referrer's files have links elsewhere, but nothing that it needs can go without it.
        let needed = lone(&world, "needed");
        let referrer = world.nix.add_path("referrer", std::slice::from_ref(&needed)).unwrap();
        let shared = lone(&world, "shared");
        for path in [&referrer, &shared] {
            world.nix.set_freed(path, Freed { bytes: 0, inodes: 1, helps: 0 });
        }
        frees(&world, &needed, 100_000);
        use_now(&world, &referrer).await;
        sleep(Duration::from_mins(1)).await;
        use_now(&world, &shared).await;
        sleep(GC_GRACE + KEEP_IDLE).await;
        world.nix.set_space(space(140_000));
        sleep(2 * GC_LOOK).await;
        let left = [&referrer, &needed, &shared].map(|path| world.nix.is_valid(path));
        assert_eq!(left, [false, false, true]);
        assert_eq!(world.health.overall().0, Condition::Ready);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_what_has_the_same_files_all_goes() {
    with_world(|world| async move {
        let twins = ["a", "b"].map(|name| lone(&world, name));
        world.nix.set_freed(&twins[0], Freed { bytes: 0, inodes: 1, helps: 60_000 });
        world.nix.set_freed(&twins[1], Freed { bytes: 60_000, inodes: 1, helps: 0 });
        for twin in &twins {
            use_now(&world, twin).await;
            sleep(Duration::from_mins(1)).await;
        }
        sleep(GC_GRACE + KEEP_IDLE).await;
        world.nix.set_space(space(140_000));
        sleep(2 * GC_LOOK).await;
        assert_eq!(world.nix.deletions().concat(), twins);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn views_of_what_was_used_lately_outlive_older_ones() {
    with_world(|mut world| async move {
        world.keeps_views(Duration::from_hours(24));
        let mut paths = Vec::new();
        for name in ["old", "young"] {
            let path = lone(&world, name);
            frees(&world, &path, 100_000);
            // No collection by age takes it: its view keeps it.
            use_now(&world, &path).await;
            paths.push(path);
            sleep(Duration::from_hours(3)).await;
        }
        world.nix.set_space(space(140_000));
        sleep(2 * GC_LOOK).await;
        let left: Vec<_> = paths.iter().map(|path| world.nix.is_valid(path)).collect();
        assert_eq!(left, [false, true]);
        let views = world.actors.views.list().await;
        assert_eq!(views.len(), 1);
        assert_eq!(views[0].view.root, paths[1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cant_be_deleted_for_its_age_keeps_no_space() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let stuck: Vec<_> = (0..20).map(|n| lone(&world, &format!("stuck{n}"))).collect();
        for path in &stuck {
            world.nix.fail_delete_of(path, failed);
        }
        let large = lone(&world, "large");
        frees(&world, &large, 200_000);
        sleep(GC_OLDER_THAN.saturating_sub(SOON)).await;
        use_now(&world, &large).await;
        sleep(GC_GRACE + KEEP_IDLE + SOON).await;
        assert!(world.nix.is_valid(&large), "used within the hour");
        world.nix.set_space(space(100_000));
        sleep(6 * GC_LOOK).await;
        assert!(!world.nix.is_valid(&large) && stuck.iter().all(|path| world.nix.is_valid(path)));
        let (_, reason) = world.health.overall();
        assert!(reason.contains("and others can't be deleted: nix-store --delete"), "{reason}");
    })
    .await;
}

/// Defect 12 of the contract: one command that hangs must not be the end of all collections.
#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_ends_and_the_next_collection_goes_on() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let path = lone(&world, "old");
        sleep(GC_OLDER_THAN).await;
        for call in [Call::Roots, Call::Delete] {
            let gate = world.nix.hold_call(call);
            sleep(SOON + GC_STEP).await;
            assert!(world.nix.is_valid(&path));
            let (condition, reason) = world.health.overall();
            assert!(matches!(condition, Condition::Impaired(_)), "{condition:?}");
            assert!(reason.contains("took longer than 10m"), "{reason}");
            let error = world.actors.gc.status().await.unwrap().error.unwrap();
            assert!(error.contains("took longer than 10m"), "{error}");
            gate.release();
        }
        sleep(SOON).await;
        assert!(!world.nix.is_valid(&path));
        assert_eq!(world.health.overall().0, Condition::Ready);
        assert!(world.actors.gc.status().await.unwrap().error.is_none());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_stuck_is_tried_once() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let stuck: Vec<_> = (0..6).map(|n| lone(&world, &format!("stuck{n}"))).collect();
        for path in &stuck {
            world.nix.fail_delete_of(path, failed);
        }
        sleep(GC_GRACE + Duration::from_mins(1)).await;
        world.nix.set_space(space(100_000));
        sleep(2 * GC_LOOK).await;
        let status = world.actors.gc.status().await.unwrap();
        assert!(status.error.is_none(), "{status:?}");
        let (_, last) = status.last.unwrap();
        assert!(last.contains("6 paths can't be deleted"), "{last}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_path_that_cant_be_deleted_keeps_no_other() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let paths = ["a", "b", "c", "d", "e"].map(|name| lone(&world, name));
        world.nix.fail_delete_of(&paths[2], failed);
        sleep(GC_OLDER_THAN + SOON).await;
        let left: Vec<_> = paths.iter().filter(|path| world.nix.is_valid(path)).collect();
        assert_eq!(left, [&paths[2]]);
        let (_, reason) = world.health.overall();
        assert!(reason.contains(&format!("{} can't be deleted", paths[2])), "{reason}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_is_away_costs_a_few_tries_and_no_more() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        for n in 0..100 {
            lone(&world, &format!("p{n}"));
        }
        world.nix.fail_call(Call::Delete, failed);
        sleep(GC_OLDER_THAN).await;
        let before = world.nix.called(Call::Delete);
        sleep(GC_INTERVAL * 3 / 2).await;
        let tries = world.nix.called(Call::Delete) - before;
        assert!((1..80).contains(&tries), "{tries}");
        assert!(world.health.overall().1.contains("nix-store --delete failed: no"));
        world.nix.heal(Call::Delete);
        sleep(SOON).await;
        assert_eq!(world.health.overall().0, Condition::Ready);
    })
    .await;
}

/// A root leads to `path` from below the driver's directory of roots.
fn root(world: &World, name: &str, path: &StorePath) {
    let link = world.dir.path().join("roots").join(name);
    symlink(Path::new(&path.to_string()), link).unwrap();
}

#[tokio::test(start_paused = true)]
async fn roots_of_nothing_are_removed_and_all_others_stay() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let (mounted, leaked) = (lone(&world, "mounted"), lone(&world, "leaked"));
        world.publish("a", &store_path(&mounted)).await.unwrap();
        let view = format!("views/{}.77", leaked.hash());
        root(&world, &view, &leaked);
        root(&world, "builds/77", &leaked);
        root(&world, "builds/77.drv", &leaked);
        root(&world, &format!("uploads/{}", leaked.hash()), &leaked);
        // A build and its roots are under way all the while.
        let source = world.buildable("building");
        let gate = world.nix.hold(source.clone());
        let building = world.publish("b", &source);
        tokio::pin!(building);
        let waits = tokio::time::timeout(GC_OLDER_THAN + SOON, &mut building).await;
        waits.unwrap_err();
        assert!(!world.nix.is_valid(&leaked));
        assert!(world.nix.is_valid(&mounted));
        assert_eq!(world.names("roots/views").len(), 1);
        assert!(world.names("roots/uploads").is_empty());
        // The build makes it at its end.
        world.buildable("building");
        gate.release();
        building.await.unwrap();
        assert_eq!(world.names("roots/views").len(), 2);
    })
    .await;
}

/// Lets everything else go on meanwhile; the clock stands.
async fn when(is: impl Fn() -> bool) {
    while !is() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_view_that_is_being_made_keeps_its_root() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        let path = lone(&world, "slow");
        // Between two collections: one that goes on now would be over after the next is awaited.
        sleep(GC_INTERVAL * 3 / 2).await;
        let hold = world.mounts.hold(Op::CreateView);
        let (source, nix) = (store_path(&path), world.nix.clone());
        let publishing = async {
            world.publish("a", &source).await.unwrap();
        };
        let collecting = async {
            when(|| world.mounts.calls(Op::CreateView) == 1).await;
            hold.wait_for_calls(1);
            // What is blocked keeps the clock from going on by itself.
            let collections = nix.called(Call::Roots);
            tokio::time::advance(SOON).await;
            when(|| nix.called(Call::Roots) > collections).await;
            assert_eq!(world.names("roots/views").len(), 1);
            drop(hold);
        };
        tokio::join!(publishing, collecting);
        assert_eq!(world.names("roots/views").len(), 1);
    })
    .await;
}

/// As after a boot: the record of what is kept is there, and neither a view nor a root.
#[tokio::test(start_paused = true)]
async fn nothing_goes_before_what_was_kept_is_held() {
    with_world(|world| async move {
        world.nix.set_space(space(900_000));
        sleep(2 * GC_OLDER_THAN).await;
        // The driver before it lives on here: it has just ended one, and begins none meanwhile.
        while !has_just_collected(&world).await {
            sleep(GC_LOOK).await;
        }
        let path = lone(&world, "kept");
        let line = format!(
            r#"{{"kind":"storePath","source":"{path}","root":"{path}","until":null,"setting":true}}"#
        );
        let record = format!(r#"{{"version":1,"kept":[{line}]}}"#);
        std::fs::write(world.dir.path().join("kept.json"), record).unwrap();
        let hold = world.mounts.hold(Op::CreateView);
        let collections = world.nix.called(Call::Roots);
        let keep = [store_path(&path)];
        let _next = world.restarted_with(Settings { keep: &keep, ..Settings::default() });
        when(|| world.mounts.calls(Op::CreateView) == 1).await;
        hold.wait_for_calls(1);
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.nix.called(Call::Roots), collections);
        drop(hold);
        when(|| world.nix.called(Call::Roots) > collections).await;
        sleep(SOON).await;
        assert!(world.nix.is_valid(&path));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_build_without_space_has_some_made() {
    with_world(|world| async move {
        let old = lone(&world, "old");
        frees(&world, &old, 60_000);
        world.nix.set_space(space(400_000));
        sleep(GC_GRACE + GC_INTERVAL).await;
        assert!(world.nix.is_valid(&old), "younger than an hour, and there is space");
        let source = world.buildable("large");
        world.nix.fail(source.clone(), || nix_csi::nix::RealiseError::NoSpace {
            step: nix_csi::nix::Step::Build,
            cause: "full".into(),
        });
        world.publish("a", &source).await.unwrap_err();
        sleep(Duration::from_secs(5)).await;
        assert!(world.nix.is_valid(&old), "whoever says so: there is room");
        world.nix.set_space(space(220_000));
        sleep(4 * GC_LOOK).await;
        world.publish("a", &source).await.unwrap_err();
        sleep(Duration::from_secs(5)).await;
        assert!(!world.nix.is_valid(&old));
        assert_eq!(world.health.overall().0, Condition::Ready);
    })
    .await;
}
