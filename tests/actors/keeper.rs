//! What a node keeps warm: there before a pod asks, held, and in nobody's way.

use std::fs;
use std::time::Duration;

use nix_csi::actors::keeper::{Kept, ReleaseError};
use nix_csi::actors::node::NodeActors;
use nix_csi::model::{Source, StorePath};
use nix_csi::mount::fake::Op;
use nix_csi::nix::{Lock, Origin, RealiseError, Step};
use tokio::time::{Instant, sleep};

use crate::world::{
    CANCEL_GRACE, KEEP_IDLE, KEEP_REFRESH, REFRESH, Settings, World, id, request, store_path,
    with_world,
};

/// Lets everything that can run, run.
async fn settle() {
    sleep(Duration::from_secs(1)).await;
}

async fn kept(actors: &NodeActors) -> Vec<Kept> {
    actors.keeper.list().await.kept
}

async fn states(actors: &NodeActors) -> Vec<&'static str> {
    kept(actors).await.iter().map(|kept| kept.state).collect()
}

/// Roots of the views that there are, with their users, sorted.
async fn views(actors: &NodeActors) -> Vec<(StorePath, usize)> {
    let views = actors.views.list().await;
    let mut views: Vec<_> = views.iter().map(|v| (v.view.root.clone(), v.users)).collect();
    views.sort();
    views
}

fn keeping(world: &World, sources: &[Source]) -> NodeActors {
    world.restarted_with(Settings { keep: sources, ..Settings::default() })
}

/// A mutable reference that names the closure `name` from now on.
fn names(world: &World, reference: &str, name: &str) -> (Source, StorePath) {
    let root = world.nix.add_closure(name, 3).unwrap();
    let locked = format!("{reference}?narHash={name}");
    let lock = Lock { reference: locked.clone(), inputs: String::new(), revision: None };
    world.nix.lock_to(reference, lock);
    let locked = Source::FlakeRef(locked);
    world.nix.answer(locked.clone(), root.clone(), Origin::Built);
    (locked, root)
}

fn temporary(world: &World, source: &Source) {
    world.nix.fail(source.clone(), || RealiseError::Temporary {
        step: Step::Fetch,
        cause: "nobody answers".to_owned(),
    });
}

#[tokio::test(start_paused = true)]
async fn the_first_pod_mounts_warm_and_nothing_is_evicted() {
    with_world(|world| async move {
        let path = store_path(&world.nix.add_closure("hello", 3).unwrap());
        let built = world.buildable("built");
        let other = store_path(&world.nix.add_closure("other", 3).unwrap());
        let actors = keeping(&world, &[path.clone(), Source::FlakeRef("o?narHash=1".into())]);
        world.nix.answer(
            Source::FlakeRef("o?narHash=1".into()),
            {
                let Source::NixExpr(name) = &built else { panic!("{built:?}") };
                world.nix.add_closure(name, 3).unwrap()
            },
            Origin::Built,
        );
        settle().await;
        assert_eq!(states(&actors).await, ["ready", "ready"]);
        let made = world.mounts.calls(Op::CreateView);
        assert_eq!((made, world.mounts.mounted()), (2, 0));
        let view = kept(&actors).await[0].view.clone();
        assert!(actors.views.list().await.iter().any(|v| Some(&v.view.id) == view.as_ref()));

        // Somebody else's goes, what is kept stays for the first pod.
        actors.directory.publish(&id("x"), request("x", &other)).await.unwrap();
        actors.directory.unpublish(&id("x"), crate::world::target("x")).await.unwrap();
        sleep(3 * KEEP_IDLE).await;
        assert_eq!(views(&actors).await.len(), 2);
        let before = world.nix.calls(&Source::FlakeRef("o?narHash=1".into()));
        for (name, source) in [("a", &path), ("b", &Source::FlakeRef("o?narHash=1".into()))] {
            actors.directory.publish(&id(name), request(name, source)).await.unwrap();
        }
        assert_eq!(world.nix.calls(&Source::FlakeRef("o?narHash=1".into())), before);
        assert_eq!(before.evaluated, 1);
        assert_eq!(world.mounts.calls(Op::CreateView), made + 1, "that of the other");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_ever_later_and_blocks_nobody() {
    with_world(|world| async move {
        let (bad, good) =
            (Source::FlakeRef("bad?narHash=1".into()), Source::FlakeRef("good?narHash=1".into()));
        temporary(&world, &bad);
        world.nix.answer(good.clone(), world.nix.add_closure("good", 3).unwrap(), Origin::Built);
        let actors = keeping(&world, &[bad.clone(), good]);
        settle().await;
        assert_eq!(states(&actors).await, ["failing", "ready"]);
        let failing = kept(&actors).await.remove(0);
        assert_eq!(failing.reason.unwrap(), "fetch failed for now after 0.0 s: nobody answers");
        assert!(failing.again_in.unwrap() > Duration::from_secs(8));

        // 10, 20, … 600 s, each with up to a quarter more.
        let tries = || world.nix.calls(&bad).started;
        assert_eq!(tries(), 1);
        sleep(Duration::from_secs(13)).await;
        assert_eq!(tries(), 2);
        sleep(Duration::from_secs(15)).await;
        assert_eq!(tries(), 2, "it waits twice as long");
        sleep(Duration::from_secs(6 * 3600)).await;
        assert!((33..=44).contains(&tries()), "{}", tries());

        world.nix.answer(bad.clone(), world.nix.add_closure("bad", 3).unwrap(), Origin::Built);
        sleep(Duration::from_secs(760)).await;
        assert_eq!(states(&actors).await, ["ready", "ready"]);
        assert!(kept(&actors).await[0].reason.is_none());
    })
    .await;
}

/// It asks the builds as a pod does, whose memory of failures spares an evaluation; what people read is why
/// it failed.
#[tokio::test(start_paused = true)]
async fn what_failed_a_moment_ago_is_not_run_for_it() {
    with_world(|world| async move {
        let bad = Source::FlakeRef("bad?narHash=1".into());
        world.nix.fail(bad.clone(), || RealiseError::Refused {
            step: Step::Evaluate,
            cause: "undefined variable 'x'".to_owned(),
            hint: None,
        });
        let file = world.dir.path().join("keep");
        fs::write(&file, "").unwrap();
        let actors =
            world.restarted_with(Settings { keep_file: Some(&file), ..Settings::default() });
        for wait in [11, 21, 41, 0] {
            actors.directory.publish(&id("pod"), request("pod", &bad)).await.unwrap_err();
            sleep(Duration::from_secs(wait)).await;
        }
        fs::write(&file, "bad?narHash=1").unwrap();
        sleep(Duration::from_secs(70)).await;
        assert_eq!(world.nix.calls(&bad).evaluated, 4);
        let reason = kept(&actors).await.remove(0).reason.unwrap();
        assert_eq!(reason, "evaluate failed after 0.0 s: undefined variable 'x'");
        sleep(Duration::from_secs(120)).await;
        assert_eq!(world.nix.calls(&bad).evaluated, 5);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_closure_replaces_the_old_one_once_it_is_ready() {
    with_world(|world| async move {
        let reference = Source::FlakeRef("github:o/r#x".to_owned());
        let (_, old) = names(&world, "github:o/r#x", "old");
        let actors = keeping(&world, std::slice::from_ref(&reference));
        settle().await;
        assert_eq!(views(&actors).await, [(old.clone(), 1)]);

        let (locked, new) = names(&world, "github:o/r#x", "new");
        let gate = world.nix.hold(locked);
        sleep(KEEP_REFRESH.saturating_sub(2 * REFRESH)).await;
        assert_eq!(states(&actors).await, ["ready"]);
        assert_eq!(world.nix.calls(&reference).locked, 1);
        sleep(2 * REFRESH + KEEP_REFRESH / 4).await;
        assert_eq!(world.nix.calls(&reference).locked, 2);
        assert_eq!(states(&actors).await, ["realising"]);
        sleep(2 * KEEP_IDLE).await;
        assert_eq!(views(&actors).await, [(old.clone(), 1)], "nothing better is there yet");
        names(&world, "github:o/r#x", "new"); // its path is no use until now: a collector took it
        gate.release();
        settle().await;
        assert_eq!(kept(&actors).await[0].root.as_ref(), Some(&new));
        let mut both = [(old, 0), (new.clone(), 1)];
        both.sort();
        assert_eq!(views(&actors).await, both);
        sleep(KEEP_IDLE + Duration::from_secs(60)).await;
        assert_eq!(views(&actors).await, [(new, 1)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn one_is_realised_at_a_time_pods_go_on_and_join() {
    with_world(|world| async move {
        let sources = ["a", "b", "c"].map(|name| {
            let source = Source::FlakeRef(format!("{name}?narHash=1"));
            let root = world.nix.add_closure(name, 3).unwrap();
            world.nix.answer(source.clone(), root, Origin::Built);
            source
        });
        let mut gates: Vec<_> = sources.iter().map(|s| world.nix.hold(s.clone())).collect();
        let actors = keeping(&world, &sources);
        let begun = || sources.iter().map(|s| world.nix.calls(s).started).collect::<Vec<_>>();
        settle().await;
        assert_eq!(begun(), [1, 0, 0]);
        assert_eq!(states(&actors).await, ["realising", "waiting", "waiting"]);
        assert_eq!(actors.builds.list().await[0].tenant.to_string(), "(local)");

        let pods = world.buildable("pod");
        actors.directory.publish(&id("pod"), request("pod", &pods)).await.unwrap();
        let joins = id("join");
        let join = actors.directory.publish(&joins, request("join", &sources[0]));
        let release = async {
            settle().await;
            gates.remove(0).release();
        };
        let (joined, ()) = tokio::join!(join, release);
        joined.unwrap();
        settle().await;
        assert_eq!(begun(), [1, 1, 0]);
        gates.into_iter().for_each(nix_csi::nix::fake::Gate::release);
        settle().await;
        assert_eq!(states(&actors).await, ["ready"; 3]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_file_is_followed_and_a_bad_line_costs_that_line() {
    with_world(|world| async move {
        let file = world.dir.path().join("keep");
        let roots = ["a", "b"].map(|name| world.nix.add_closure(name, 3).unwrap());
        let [a, b] = &roots;
        let write = |text: &str| {
            fs::write(file.with_extension("new"), text).unwrap();
            fs::rename(file.with_extension("new"), &file).unwrap();
        };
        let settings = Settings { keep_file: Some(&file), ..Settings::default() };
        let actors = world.restarted_with(settings);
        let tick = || sleep(Duration::from_secs(11));
        let held = async || {
            let kept = kept(&actors).await;
            kept.iter().filter_map(|k| k.root.clone()).collect::<Vec<_>>()
        };
        let refused = async || actors.keeper.list().await.refused;
        settle().await;
        assert!(refused().await[0].contains("keep: can't read it: "), "{:?}", refused().await);

        write(&format!("# kept\n{a}\n--option\n"));
        tick().await;
        assert_eq!(held().await, std::slice::from_ref(a));
        let told = refused().await;
        assert_eq!(told.len(), 1);
        assert!(told[0].ends_with(
            "keep: line 3: a source does not begin with a dash: write a store path such as \
             /nix/store/…-hello, or a flake reference such as github:owner/repo#attribute"
        ));

        write(&format!("{b}\n{a}\n"));
        tick().await;
        assert_eq!(held().await, [a.clone(), b.clone()]);
        assert!(refused().await.is_empty());
        fs::remove_file(&file).unwrap();
        tick().await;
        assert_eq!(held().await, [a.clone(), b.clone()], "what can't be read changes nothing");
        assert_eq!(refused().await.len(), 1);

        // Nor for a process that has never read it.
        drop(actors);
        let actors = world.restarted_with(settings);
        sleep(3 * KEEP_IDLE).await;
        let mut both = [(a.clone(), 1), (b.clone(), 1)];
        both.sort();
        assert_eq!(views(&actors).await, both);
        write(&format!("{b}\n"));
        sleep(2 * KEEP_IDLE).await;
        assert_eq!(views(&actors).await, [(b.clone(), 1)]);
        write("");
        sleep(2 * KEEP_IDLE).await;
        assert!(views(&actors).await.is_empty() && kept(&actors).await.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_out_of_the_file_is_not_built_on() {
    with_world(|world| async move {
        let source = Source::FlakeRef("a?narHash=1".into());
        world.nix.answer(source.clone(), world.nix.add_closure("a", 3).unwrap(), Origin::Built);
        let gate = world.nix.hold(source.clone());
        // No event of the link's directory tells of its target.
        let file = world.dir.path().join("keep");
        let target = world.dir.path().join("elsewhere");
        fs::create_dir(&target).unwrap();
        let target = target.join("keep");
        std::os::unix::fs::symlink(&target, &file).unwrap();
        fs::write(&target, "a?narHash=1").unwrap();
        let actors =
            world.restarted_with(Settings { keep_file: Some(&file), ..Settings::default() });
        settle().await;
        assert_eq!(states(&actors).await, ["realising"]);
        fs::write(&target, "").unwrap();
        sleep(Duration::from_secs(11)).await;
        assert!(kept(&actors).await.is_empty());
        sleep(CANCEL_GRACE).await;
        assert_eq!(world.nix.calls(&source).cancelled, 1);
        drop(gate);
    })
    .await;
}

/// The view is on disk, and who knows what the reference names is not asked first.
#[tokio::test(start_paused = true)]
async fn another_driver_has_at_once_what_was_kept() {
    with_world(|world| async move {
        let mutable = Source::FlakeRef("github:o/r#x".to_owned());
        let (_, root) = names(&world, "github:o/r#x", "app");
        let locked = Source::FlakeRef("o?narHash=1".to_owned());
        let other = world.nix.add_closure("other", 3).unwrap();
        world.nix.answer(locked.clone(), other.clone(), Origin::Built);
        let sources = [mutable.clone(), locked.clone()];
        let first = keeping(&world, &sources);
        settle().await;
        assert_eq!(states(&first).await, ["ready"; 2]);
        drop(first);

        world.nix.forget_lock("github:o/r#x");
        let next = keeping(&world, &sources);
        settle().await;
        let mut both = [(root.clone(), 1), (other, 1)];
        both.sort();
        assert_eq!(views(&next).await, both);
        assert_eq!(world.mounts.calls(Op::CreateView), 2);
        let now = kept(&next).await;
        assert_eq!((now[0].state, now[0].root.as_ref()), ("failing", Some(&root)));
        assert_eq!(now[1].state, "ready");
        next.directory.publish(&id("a"), request("a", &locked)).await.unwrap();
        assert_eq!(world.nix.calls(&locked).evaluated, 1, "in the first one's life");
        drop(next);

        // Settings that name it no more.
        let last = keeping(&world, &[]);
        settle().await;
        assert!(kept(&last).await.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_is_warm_and_idles_unless_it_is_kept() {
    with_world(|world| async move {
        let source = world.buildable("app");
        let made = world.actors.keeper.prefetch(source.clone(), id("p1"), None).await.unwrap();
        assert_eq!((made.resolved.origin, made.kept_until), (Origin::Built, None));
        let root = made.resolved.lease.view().root.clone();
        drop(made);
        assert!(kept(&world.actors).await.is_empty());
        assert_eq!(views(&world.actors).await, [(root.clone(), 0)]);
        sleep(KEEP_IDLE + Duration::from_secs(60)).await;
        assert!(views(&world.actors).await.is_empty());

        let day = Duration::from_secs(12 * 3600);
        let made = world.actors.keeper.prefetch(source.clone(), id("p2"), Some(day)).await.unwrap();
        assert!(made.kept_until.is_some());
        drop(made);
        sleep(day.saturating_sub(2 * KEEP_IDLE)).await;
        assert_eq!(states(&world.actors).await, ["ready"]);
        assert_eq!(views(&world.actors).await, [(root.clone(), 1)]);
        sleep(4 * KEEP_IDLE).await;
        assert!(kept(&world.actors).await.is_empty());
        assert!(views(&world.actors).await.is_empty());
        let record = fs::read_to_string(world.dir.path().join("kept.json")).unwrap();
        assert_eq!(record, r#"{"version":1,"kept":[]}"#);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_prefetch_keeps_outlives_the_driver_until_it_is_let_go() {
    with_world(|world| async move {
        let (_, root) = names(&world, "github:o/r#x", "app");
        let source = Source::FlakeRef("github:o/r#x".to_owned());
        let day = Some(Duration::from_secs(24 * 3600));
        drop(world.actors.keeper.prefetch(source.clone(), id("p"), day).await.unwrap());
        // A person keeps what there was, not what the reference names later.
        names(&world, "github:o/r#x", "later");
        let next = world.restarted();
        sleep(2 * KEEP_REFRESH).await;
        assert_eq!(views(&next).await, [(root.clone(), 1)]);
        assert_eq!(world.nix.calls(&source).locked, 1);

        let none = ReleaseError::NotKept { source_text: "other".to_owned() };
        assert_eq!(next.keeper.release("other".to_owned()).await, Err(none));
        next.keeper.release(root.to_string()).await.unwrap();
        sleep(2 * KEEP_IDLE).await;
        assert!(views(&next).await.is_empty());
        drop(next);

        names(&world, "github:o/r#x", "later"); // which a collector took
        let next = keeping(&world, std::slice::from_ref(&source));
        settle().await;
        let refused = next.keeper.release(source.text()).await.unwrap_err();
        assert!(refused.to_string().contains("the node's --keep or --keep-file names"));
        // Both: the settings have the last word.
        drop(next.keeper.prefetch(source.clone(), id("p"), day).await.unwrap());
        next.keeper.release(source.text()).await.unwrap();
        assert_eq!(states(&next).await, ["ready"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_that_nobody_waits_for_is_cancelled() {
    with_world(|world| async move {
        let source = world.buildable("slow");
        let gate = world.nix.hold(source.clone());
        let limit = Duration::from_secs(5);
        let prefetch = world.actors.keeper.prefetch(source.clone(), id("p"), None);
        assert!(tokio::time::timeout_at(Instant::now() + limit, prefetch).await.is_err());
        sleep(CANCEL_GRACE + limit).await;
        assert_eq!(world.nix.calls(&source).cancelled, 1);
        drop(gate);
        temporary(&world, &source);
        let failed = world.actors.keeper.prefetch(source, id("p"), limit.into()).await.unwrap_err();
        assert_eq!(failed.to_string(), "fetch failed for now after 0.0 s: nobody answers");
        assert!(kept(&world.actors).await.is_empty());
    })
    .await;
}
