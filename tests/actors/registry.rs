//! The builders' registry, with a cluster of the test's making and a real file.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix_csi::actors::core::{Backoff, End};
use nix_csi::actors::registry::{
    BuilderProbe, BuilderRegistry, BuilderState, Probe, RegistryConfig, RegistryHandle,
};
use nix_csi::k8s::BuilderPod;
use nix_csi::k8s::fake_builders::{FakeBuilders, pod};
use nix_csi::model::{Address, Announcement};
use tokio::task::LocalSet;
use tokio::time::sleep;

const BEFORE: &str = "ssh-ng://nix@10.9.9.9 x86_64-linux - 1 1 - - -\n";

struct Scene {
    dir: tempfile::TempDir,
    cluster: FakeBuilders,
    registry: RegistryHandle,
}

impl Scene {
    fn start(dir: tempfile::TempDir, cluster: FakeBuilders) -> Self {
        Self::start_with(dir, cluster, false)
    }

    fn start_with(dir: tempfile::TempDir, cluster: FakeBuilders, asks_first: bool) -> Self {
        let machines = dir.path().join("machines");
        let config = RegistryConfig { asks_first, ..RegistryConfig::new(machines) };
        let registry = BuilderRegistry::new(config, Arc::new(cluster.clone()));
        let end = |end| assert_eq!(end, End::Done);
        let registry = RegistryHandle::start(registry, backoff(), end);
        Self { dir, cluster, registry }
    }

    /// A registry that has written `hosts`.
    async fn with(hosts: &[u32]) -> Self {
        let cluster = FakeBuilders::default();
        for host in hosts {
            cluster.apply(pod(*host));
        }
        let scene = Self::start(tempfile::tempdir().unwrap(), cluster);
        seconds(5).await;
        assert_eq!(scene.hosts(), hosts);
        scene
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("machines")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// The last number of each address in the file.
    fn hosts(&self) -> Vec<u32> {
        let host = |line: &str| {
            let uri = line.split(' ').next().unwrap();
            let [.., high, low] =
                uri.split('.').map(|n| n.parse::<u32>().ok()).collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            high.unwrap() * 256 + low.unwrap()
        };
        self.text().lines().map(host).collect()
    }

    /// Another one after each write: an inode alone may be used again.
    fn version(&self) -> (u64, i64, i64) {
        let file = fs::metadata(self.path()).unwrap();
        (file.ino(), file.ctime(), file.ctime_nsec())
    }

    async fn state(&self, host: u32) -> BuilderState {
        let all = self.registry.list().await;
        all.into_iter().find(|builder| builder.pod == pod(host).name).unwrap().state
    }

    /// So often in a row it was asked.
    async fn asked(&self, host: u32, answers: bool, times: u32) {
        for _ in 0..times {
            let answer = answers.then(Announcement::default);
            self.registry.asked([(address(host), answer)].into());
        }
        seconds(1).await;
    }
}

fn backoff() -> Backoff {
    let second = Duration::from_secs(1);
    Backoff::new(second, 2 * second, 60 * second, 5)
}

fn unready(host: u32) -> BuilderPod {
    BuilderPod { is_ready: false, ..pod(host) }
}

fn address(host: u32) -> Address {
    pod(host).ip.unwrap().into()
}

async fn millis(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

async fn seconds(seconds: u64) {
    millis(seconds * 1000).await;
}

async fn local<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    LocalSet::new().run_until(async { test().await }).await;
}

#[tokio::test(start_paused = true)]
async fn the_file_follows_the_cluster() {
    local(|| async {
        let scene = Scene::with(&[1, 2]).await;
        assert_eq!(scene.text().lines().next(), Some("ssh-ng://nix@10.0.0.1 - - 1 1 - - -"));
        assert_eq!(fs::metadata(scene.path()).unwrap().mode() & 0o7777, 0o644);
        scene.cluster.apply(pod(3));
        seconds(1).await;
        assert_eq!(scene.hosts(), [1, 2, 3]);
        scene.cluster.apply(unready(2));
        seconds(1).await;
        assert_eq!(scene.hosts(), [1, 3]);
        scene.cluster.delete("uid-1");
        scene.cluster.apply(pod(2));
        seconds(1).await;
        assert_eq!(scene.hosts(), [2, 3]);
        for host in [2, 3] {
            scene.cluster.delete(&format!("uid-{host}"));
        }
        seconds(1).await;
        assert_eq!(scene.text(), "", "nobody builds any more, and that is known");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn changes_wait_for_quiet_but_not_for_long() {
    local(|| async {
        let scene = Scene::with(&[1]).await;
        scene.cluster.apply(pod(2));
        millis(150).await;
        scene.cluster.apply(pod(3));
        millis(150).await;
        assert_eq!(scene.hosts(), [1], "it was not quiet for 200 ms");
        millis(100).await;
        assert_eq!(scene.hosts(), [1, 2, 3]);
        for host in 4..=22 {
            scene.cluster.apply(pod(host));
            millis(100).await;
            assert_eq!(scene.hosts().len(), 3, "at {host}");
        }
        for host in 23..=26 {
            scene.cluster.apply(pod(host));
            millis(100).await;
        }
        assert!(scene.hosts().len() > 20, "2 s are long: {:?}", scene.hosts());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_in_the_file_does_not_write_it() {
    local(|| async {
        let scene = Scene::with(&[1]).await;
        let before = scene.version();
        scene.cluster.apply(unready(2));
        scene.cluster.apply(BuilderPod { node: Some("n".to_owned()), ..pod(1) });
        seconds(5).await;
        scene.cluster.relist();
        seconds(5).await;
        // There and gone within the quiet.
        scene.cluster.apply(pod(3));
        scene.cluster.delete("uid-3");
        seconds(5).await;
        assert_eq!(scene.version(), before);
        // Another cache on the same file.
        let Scene { dir, cluster, registry } = scene;
        drop(registry);
        let scene = Scene::start(dir, cluster);
        seconds(30).await;
        assert_eq!((scene.version(), scene.hosts()), (before, vec![1]));
        scene.cluster.apply(pod(2));
        seconds(1).await;
        assert_ne!(scene.version(), before);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_forgets_no_builder_before_the_list_is_there() {
    local(|| async {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("machines"), BEFORE).unwrap();
        let cluster = FakeBuilders::default();
        cluster.lose();
        let scene = Scene::start(dir, cluster);
        seconds(600).await;
        assert_eq!(scene.text(), BEFORE);
        scene.cluster.relist();
        seconds(1).await;
        assert_eq!(scene.text(), "", "now it is known that there is none");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn without_a_file_of_before_there_is_one_as_soon_as_the_list_is_known() {
    local(|| async {
        let scene = Scene::start(tempfile::tempdir().unwrap(), FakeBuilders::default());
        seconds(1).await;
        assert_eq!(scene.text(), "");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_watch_keeps_the_builders_and_a_list_tells_what_was_missed() {
    local(|| async {
        let scene = Scene::with(&[1, 2]).await;
        scene.cluster.lose();
        scene.cluster.delete("uid-1");
        scene.cluster.apply(unready(2));
        scene.cluster.apply(pod(3));
        seconds(600).await;
        assert_eq!(scene.hosts(), [1, 2]);
        scene.cluster.relist();
        seconds(1).await;
        assert_eq!(scene.hosts(), [3]);
        assert_eq!(scene.registry.list().await.len(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_does_not_answer_is_left_out_until_it_does() {
    local(|| async {
        let scene = Scene::with(&[1, 2]).await;
        let is_mute = Arc::new(AtomicBool::new(true));
        let (mute, asked) = (is_mute.clone(), Arc::new(AtomicUsize::new(0)));
        let counted = asked.clone();
        let probe: Probe = Arc::new(move |of| {
            counted.fetch_add(1, Ordering::Relaxed);
            let answers = of != address(2) || !mute.load(Ordering::Relaxed);
            Box::pin(std::future::ready(answers.then(Announcement::default)))
        });
        let held = BuilderProbe::start(scene.registry.clone(), probe, backoff(), |_| {});
        seconds(45).await;
        assert_eq!(scene.hosts(), [1]);
        assert_eq!(scene.state(2).await, BuilderState::Benched);
        is_mute.store(false, Ordering::Relaxed);
        seconds(20).await;
        assert_eq!(scene.hosts(), [1, 2]);
        // Not in a loop: every 15 s.
        assert!((8..=14).contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
        drop(held);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_builder_is_asked_what_it_can_do_before_it_is_written_down() {
    local(|| async {
        let (cluster, dir) = (FakeBuilders::default(), tempfile::tempdir().unwrap());
        fs::write(dir.path().join("machines"), BEFORE).unwrap();
        cluster.apply(pod(1));
        let jobs = [("builder-max-jobs".to_owned(), "3".to_owned())];
        cluster.apply(BuilderPod { annotations: jobs.into(), ..pod(2) });
        let scene = Scene::start_with(dir, cluster, true);
        seconds(5).await;
        assert_eq!(scene.text(), BEFORE, "written by guess");

        let said = Announcement::parse("SSH-2.0-x nix-csi jobs=8 systems=i686-linux features=kvm");
        let probe: Probe = Arc::new(move |of| {
            let said = said.clone();
            Box::pin(async move {
                if of == address(3) {
                    std::future::pending::<()>().await; // the probe's own limit is not this one's
                }
                Some(said)
            })
        });
        let held = BuilderProbe::start(scene.registry.clone(), probe, backoff(), |_| {});
        seconds(1).await;
        let lines = [
            "ssh-ng://nix@10.0.0.1 i686-linux - 8 1 kvm - -\n",
            "ssh-ng://nix@10.0.0.2 i686-linux - 3 1 kvm - -\n",
        ];
        assert_eq!(scene.text(), lines.concat());
        // Not with the next look of every 15 s, but now.
        scene.cluster.apply(pod(4));
        seconds(1).await;
        assert_eq!(scene.hosts(), [1, 2, 4]);
        // One that is mute keeps the others waiting for a while only.
        scene.cluster.apply(pod(3));
        scene.cluster.delete("uid-1");
        seconds(9).await;
        assert_eq!(scene.hosts(), [1, 2, 4]);
        seconds(3).await;
        assert_eq!(scene.hosts(), [2, 3, 4]);
        drop(held);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_an_answer_or_a_new_pod_ends_the_bench() {
    local(|| async {
        let scene = Scene::with(&[1, 2]).await;
        scene.asked(1, false, 2).await;
        assert_eq!(scene.hosts(), [1, 2]);
        scene.asked(1, false, 1).await;
        assert_eq!(scene.hosts(), [2]);
        assert_eq!(scene.state(1).await, BuilderState::Benched);
        // Neither time, nor what changes about its pod, nor what is listed anew.
        let before = scene.version();
        scene.cluster.apply(BuilderPod { node: Some("n".to_owned()), ..pod(1) });
        scene.cluster.relist();
        seconds(5_000).await;
        assert_eq!((scene.hosts(), scene.version()), (vec![2], before));
        scene.asked(1, true, 1).await;
        assert_eq!(scene.hosts(), [1, 2]);
        scene.asked(1, false, 2).await;
        assert_eq!(scene.hosts(), [1, 2], "the row began anew");
        scene.asked(2, false, 3).await;
        assert_eq!(scene.hosts(), [1]);
        scene.cluster.delete("uid-2");
        scene.cluster.apply(BuilderPod { uid: "another".to_owned(), ..pod(2) });
        seconds(1).await;
        assert_eq!(scene.hosts(), [1, 2]);
        // Nobody knows this one.
        scene.asked(7, false, 9).await;
        assert_eq!(scene.hosts(), [1, 2]);
    })
    .await;
}

/// Each holds its probe for as long as one may.
#[tokio::test(start_paused = true)]
async fn many_dead_builders_are_left_out_together_and_hold_up_nobody_for_long() {
    local(|| async {
        let hosts: Vec<_> = (0..2000).collect();
        let scene = Scene::with(&hosts).await;
        // Two pods of one address are asked once.
        scene.cluster.apply(BuilderPod { ip: pod(0).ip, ..pod(2000) });
        let dead: HashSet<_> = hosts.into_iter().step_by(10).map(address).collect();
        let probe: Probe = Arc::new(move |of| {
            let is_dead = dead.contains(&of);
            Box::pin(async move {
                sleep(Duration::from_secs(if is_dead { 5 } else { 0 })).await;
                (!is_dead).then(Announcement::default)
            })
        });
        let held = BuilderProbe::start(scene.registry.clone(), probe, backoff(), |_| {});
        seconds(45).await;
        assert_eq!(scene.hosts().len(), 2000, "twice is not thrice");
        seconds(30).await;
        assert_eq!(scene.hosts().len(), 1800);
        let before = scene.version();
        seconds(600).await;
        assert_eq!(scene.version(), before);
        drop(held);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_says_nonsense_or_no_is_left_out_until_it_does_not() {
    local(|| async {
        let scene = Scene::with(&[1]).await;
        let says = |host, key: &str, value: &str| BuilderPod {
            annotations: [(key.to_owned(), value.to_owned())].into(),
            ..pod(host)
        };
        scene.cluster.apply(says(2, "builder-features", "kvm - - -\nssh-ng://evil"));
        scene.cluster.apply(says(3, "builder", "false"));
        seconds(1).await;
        assert_eq!(scene.hosts(), [1]);
        assert_eq!(scene.state(2).await, BuilderState::Invalid);
        assert_eq!(scene.state(3).await, BuilderState::Excluded);
        scene.cluster.apply(says(2, "builder-features", "kvm"));
        scene.cluster.apply(pod(3));
        seconds(1).await;
        assert_eq!(scene.hosts(), [1, 2, 3]);
        assert_eq!(scene.text().lines().nth(1), Some("ssh-ng://nix@10.0.0.2 - - 1 1 kvm - -"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_a_watch_that_ends_are_survived() {
    local(|| async {
        let scene = Scene::with(&[1, 2]).await;
        let before = scene.version();
        scene.cluster.panic();
        seconds(10).await;
        assert_eq!((scene.cluster.watches(), scene.version()), (2, before));
        scene.cluster.lose();
        scene.cluster.panic();
        seconds(600).await;
        assert_eq!(
            (scene.cluster.watches(), scene.version()),
            (3, before),
            "the list is not there"
        );
        // What somebody wrote in between is seen, since the file is read anew.
        fs::write(scene.path(), BEFORE).unwrap();
        scene.cluster.end();
        seconds(10).await;
        assert_eq!(scene.text(), BEFORE);
        scene.cluster.relist();
        seconds(1).await;
        assert_eq!((scene.cluster.watches(), scene.hosts()), (4, vec![1, 2]));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_written_is_tried_again() {
    local(|| async {
        let scene = Scene::with(&[1]).await;
        // Even root can't put a file in the place of a directory.
        fs::remove_file(scene.path()).unwrap();
        fs::create_dir(scene.path()).unwrap();
        scene.cluster.apply(pod(2));
        seconds(30).await;
        fs::remove_dir(scene.path()).unwrap();
        seconds(10).await;
        assert_eq!(scene.hosts(), [1, 2]);
        assert_eq!(fs::read_dir(scene.dir.path()).unwrap().count(), 1, "no leftovers");
    })
    .await;
}

/// On the paused clock nothing else moves time while a thread writes.
async fn advance() {
    for step in [Duration::ZERO, Duration::from_secs(1)] {
        tokio::time::advance(step).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_the_file_is_written_is_written_next() {
    local(|| async {
        let scene = Scene::with(&[1]).await;
        // A write into a pipe waits for its reader.
        let pipe = scene.dir.path().join(".machines.tmp");
        let (kind, mode) = (rustix::fs::FileType::Fifo, 0o600.into());
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        scene.cluster.apply(pod(2));
        advance().await;
        scene.cluster.apply(pod(3));
        advance().await;
        assert_eq!(scene.hosts(), [1]);
        let read = std::thread::spawn(|| fs::read_to_string(pipe).unwrap());
        assert_eq!(read.join().unwrap().lines().count(), 2);
        seconds(1).await;
        assert!(fs::metadata(scene.path()).unwrap().is_file());
        assert_eq!(scene.hosts(), [1, 2, 3]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_metrics_are_there_from_the_start() {
    local(|| async {
        let _scene = Scene::with(&[1]).await;
        let text = nix_csi::metrics::render().unwrap();
        for name in [
            "nixcsi_builders{state=\"ready\"} ",
            "nixcsi_builders{state=\"not-ready\"} ",
            "nixcsi_builders{state=\"benched\"} ",
            "nixcsi_builders{state=\"invalid\"} ",
            "nixcsi_builders{state=\"excluded\"} ",
            "nixcsi_registry_writes_total ",
            "nixcsi_registry_watch_lost_total ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}");
        }
    })
    .await;
}

/// Two rollouts of 2,000 nodes in 5 s, one change after the other.
#[tokio::test(start_paused = true)]
async fn thousands_of_pods_are_few_writes_and_the_right_end() {
    local(|| async {
        let hosts: Vec<_> = (0..2000).collect();
        let scene = Scene::with(&hosts).await;
        let (mut version, mut seen) = (scene.version(), Vec::new());
        for round in [unready, pod, unready, pod] {
            for some in hosts.chunks(16) {
                for host in some {
                    scene.cluster.apply(round(*host));
                }
                millis(10).await;
                if scene.version() != version {
                    version = scene.version();
                    seen.push(scene.hosts().len());
                }
            }
        }
        // Every 2 s.
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(seen.iter().all(|len| (1..2000).contains(len)), "{seen:?}");
        seconds(5).await;
        assert_eq!(scene.hosts(), hosts);
    })
    .await;
}
