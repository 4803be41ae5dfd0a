//! The metrics: as many series with ten thousand volumes as with a few hundred. A process of its own, since metrics are
//! the process's, and other tests would add to them.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "actors/world.rs"]
#[expect(dead_code, reason = "it is there for other tests, too")]
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use nix_csi::actors::volume::Request;
use nix_csi::model::{Access, PodInfo, Source};
use nix_csi::mount::MountError;
use nix_csi::mount::fake::Op;
use nix_csi::nix::{Origin, RealiseError, Step};

use world::{World, id, request, store_path, target, with_looks};

/// In all that must be nowhere: names of volumes, pods, namespaces, closures and sources.
const MARK: &str = "secret";
const KINDS: usize = 20;

/// Names and labels of all series, and how long the text is without the numbers.
fn series() -> (BTreeSet<String>, usize) {
    let text = nix_csi::metrics::render().unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names: BTreeSet<_> =
        samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
    let length = names.iter().map(String::len).sum();
    (names, length)
}

/// A volume of one of [`KINDS`], of its own pod, in one of many namespaces.
fn volume(world: &World, n: usize) -> (Request, bool) {
    let name = format!("{MARK}-{n}");
    let source = match n % 4 {
        0 => store_path(&world.nix.add_closure(&format!("{MARK}-path-{}", n % KINDS), 2).unwrap()),
        1 => world.buildable(&format!("{MARK}-text-{}", n % KINDS)),
        2 => {
            let source = Source::FlakeRef(format!("github:{MARK}/x/{:040}#a", n % KINDS));
            let root = world.nix.add_closure(&format!("{MARK}-flake-{}", n % KINDS), 2).unwrap();
            world.nix.answer(source.clone(), root, Origin::Substituted);
            source
        }
        _ => {
            let source = Source::NixExpr(format!("throw \"{MARK}-{n}\""));
            let cause = format!("{MARK} {n}");
            world.nix.fail(source.clone(), move || match n % 3 {
                0 => {
                    RealiseError::Refused { step: Step::Evaluate, cause: cause.clone(), hint: None }
                }
                1 => RealiseError::Temporary { step: Step::Fetch, cause: cause.clone() },
                _ => RealiseError::NoSpace { step: Step::Build, cause: cause.clone() },
            });
            source
        }
    };
    let mut request = request(&name, &source);
    request.spec.pod = Some(PodInfo {
        namespace: format!("{MARK}-space-{}", n % 500),
        name: name.clone(),
        uid: name,
        service_account: MARK.to_owned(),
        is_ephemeral: true,
    });
    if n.is_multiple_of(5) {
        request.spec.access = Access::Writable;
    }
    (request, n % 4 != 3)
}

async fn live(world: &World, numbers: std::ops::Range<usize>) {
    for n in numbers {
        let name = format!("{MARK}-{n}");
        let (request, works) = volume(world, n);
        let fails_late = works && n.is_multiple_of(7);
        if fails_late {
            world.mounts.fail_next(Op::Attach, MountError::NoParent { target: target(&name) });
        }
        let directory = &world.actors.directory;
        let published = directory.publish(&id(&name), request.clone()).await;
        assert_eq!(published.is_ok(), works && !fails_late, "{n}: {published:?}");
        if fails_late {
            directory.publish(&id(&name), request).await.unwrap();
        }
        if n.is_multiple_of(2) {
            world.unpublish(&name).await.unwrap();
        }
    }
    world.actors.views.count().await;
    world.actors.builds.count().await;
    // Views are swept, uploads sent, events told and garbage is collected.
    tokio::time::sleep(Duration::from_mins(16)).await;
}

fn assert_has(samples: &[&str]) {
    let text = nix_csi::metrics::render().unwrap();
    for sample in samples {
        assert!(text.lines().any(|line| line == *sample), "{sample}\n{text}");
    }
}

/// What a first few volumes come to.
async fn a_few_are_counted(world: &World) {
    let source = store_path(&world.nix.add_closure("plain", 3).unwrap());
    world.publish("first", &source).await.unwrap();
    for name in ["second", "third"] {
        world.publish(name, &source).await.unwrap();
    }
    world.mounts.lose_mount(&target("third"));
    world.publish("third", &source).await.unwrap();
    world.publish("third", &source).await.unwrap();
    let expression = world.buildable("expression");
    world.publish("fourth", &expression).await.unwrap();
    world.unpublish("first").await.unwrap();
    for name in ["second", "third"] {
        world.unpublish(name).await.unwrap();
    }
    world.actors.views.count().await;
    assert_has(&[
        "nixcsi_publish_seconds_count{outcome=\"ok\",source=\"storePath\",warm=\"no\"} 1",
        "nixcsi_publish_seconds_count{outcome=\"ok\",source=\"storePath\",warm=\"yes\"} 3",
        "nixcsi_publish_seconds_count{outcome=\"ok\",source=\"nixExpr\",warm=\"no\"} 1",
        "nixcsi_publish_phase_seconds_count{phase=\"resolve\",source=\"storePath\"} 3",
        "nixcsi_publish_phase_seconds_count{phase=\"view\",source=\"storePath\"} 3",
        "nixcsi_publish_phase_seconds_count{phase=\"mount\",source=\"storePath\"} 4",
        "nixcsi_publish_phase_seconds_count{phase=\"evaluate\",source=\"nixExpr\"} 1",
        "nixcsi_realise_seconds_count{outcome=\"ok\",source=\"nixExpr\",where=\"none\"} 1",
        "nixcsi_volumes{access=\"ro\"} 1",
        "nixcsi_volumes{access=\"rw\"} 0",
        "nixcsi_views{state=\"used\"} 1",
        "nixcsi_views{state=\"idle\"} 1",
        "nixcsi_store_watermark{mark=\"high\",unit=\"bytes\"} 150000",
        "nixcsi_store_watermark{mark=\"low\",unit=\"inodes\"} 200000",
    ]);
    let text = nix_csi::metrics::render().unwrap();
    for phase in ["evaluate", "fetch", "build"] {
        let series =
            format!("nixcsi_publish_phase_seconds_count{{phase=\"{phase}\",source=\"storePath\"}}");
        assert!(!text.contains(&series), "{series} is there, and did not happen");
    }
    world.unpublish("fourth").await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_has(&["nixcsi_volumes{access=\"ro\"} 0", "nixcsi_mounts 0"]);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_volumes_have_as_many_series_as_a_few() {
    with_looks(Duration::from_hours(1000), Duration::from_mins(5), |world| async move {
        a_few_are_counted(&world).await;
        live(&world, 0..420).await;
        let (few, length) = series();
        for family in ["nixcsi_publish_phase_seconds", "nixcsi_realise_seconds", "nixcsi_volumes"] {
            assert!(few.iter().any(|name| name.starts_with(family)), "{family}: {few:#?}");
        }
        live(&world, 420..10_000).await;
        let (many, longer) = series();
        let new: Vec<_> = many.difference(&few).collect();
        assert!(new.is_empty() && length == longer, "{new:#?}");
        let told: Vec<_> = many.iter().filter(|name| is_told(name)).collect();
        assert!(told.is_empty(), "{told:#?}");
    })
    .await;
}

/// Whether a label says what is one volume's.
fn is_told(name: &str) -> bool {
    let hash = |word: &str| word.len() == 32 && word.chars().all(|c| c.is_ascii_alphanumeric());
    name.contains(MARK)
        || name.contains("/nix/")
        || name.split(|c: char| !c.is_ascii_alphanumeric()).any(hash)
}
