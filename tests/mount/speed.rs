//! What a mount costs, printed; a wide bound only, since test machines are busy. A redirect view's
//! cost must not grow with the number of files.

use std::fs;
use std::io::Write as _;
use std::time::Duration;

use nix_csi::model::{Closure, PathInfo, Shape, StorePath, VolumeSize};
use nix_csi::mount::{Mounts, Presentation};
use tokio::time::Instant;

use crate::world::{World, can_bound, in_namespace, mount_tmpfs, no_database, volume};

const PATHS: usize = 500;
const ROUNDS: u32 = 200;

fn path(i: usize) -> StorePath {
    StorePath::from_base_name(&format!("{i:032}-p")).unwrap()
}

fn closure(world: &World, files: usize) -> Closure {
    for i in 0..PATHS {
        let dir = world.store.join(path(i).base_name());
        fs::create_dir_all(&dir).unwrap();
        for file in 0..files {
            fs::write(dir.join(file.to_string()), "").unwrap();
        }
    }
    let paths = (0..PATHS).map(|i| PathInfo { path: path(i), nar_size: 1 });
    Closure { root: path(0), paths: paths.collect() }
}

fn say(what: &str, each: Duration) {
    let line = format!(
        "{what}: {:.1} µs
",
        each.as_secs_f64() * 1e6
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

#[test]
fn a_redirect_view_costs_little_per_path_and_nothing_per_file() {
    for memory in [false, true] {
        in_namespace(move |world| {
            if memory {
                mount_tmpfs(&world.base.join("state"), "size=256m");
            }
            let mounts = world.open(Presentation::Redirect);
            for (files, first) in [(0, 1), (10, 10)] {
                let closure = closure(world, files);
                let mut best = Duration::MAX;
                // Not removed in between: for a minute ext4 passes over deleted inodes one by one.
                for n in first..first + 3 {
                    let start = Instant::now();
                    mounts.create_view(&world.id(n), &closure, &no_database).unwrap();
                    best = best.min(start.elapsed());
                }
                let each = best / u32::try_from(PATHS).unwrap();
                let place = if memory { "on tmpfs" } else { "on disk" };
                say(&format!("a path with {files} files of a view {place}"), each);
                assert!(each < Duration::from_millis(2));
            }
        });
    }
}

#[test]
fn a_volume_costs_little() {
    in_namespace(|world| {
        mount_tmpfs(&world.base.join("state"), "size=64m");
        mount_tmpfs(&world.pods, "size=1m");
        let mounts = world.open(Presentation::Redirect);
        world.view(&mounts, 1).unwrap();
        let (target, vol) = (world.target("a"), volume("v"));
        let shapes = [Shape::ReadOnly, Shape::Idmapped, Shape::Writable];
        let bounded = Shape::Bounded(VolumeSize::parse("1Gi").unwrap());
        for shape in shapes.into_iter().chain(can_bound().then_some(bounded)) {
            let mut best = [Duration::MAX; 3];
            for _ in 0..ROUNDS {
                let start = Instant::now();
                mounts.attach(&world.id(1), &target, &vol, shape).unwrap();
                let attached = Instant::now();
                mounts.attached(&world.id(1), &target, &vol, shape).unwrap();
                let asked = Instant::now();
                mounts.detach(&target, &vol).unwrap();
                for (best, now) in
                    best.iter_mut().zip([attached - start, asked - attached, asked.elapsed()])
                {
                    *best = now.min(*best);
                }
            }
            for (what, best) in ["attach", "attached", "detach"].into_iter().zip(best) {
                say(&format!("{what}, {shape:?}"), best);
                assert!(best < Duration::from_millis(50));
            }
        }
    });
}
