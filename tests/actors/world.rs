//! A node's actors with stand-ins below them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix_csi::actors::builds::MemoryConfig;
use nix_csi::actors::gc::Rules;
use nix_csi::actors::gc::used::{Used, WallClock};
use nix_csi::actors::gc::water::Watermarks;
use nix_csi::actors::keeper::KeeperConfig;
use nix_csi::actors::node::{GcActorConfig, NodeActors, NodeActorsConfig};
use nix_csi::actors::policy::{PolicyConfig, PolicySource};
use nix_csi::actors::uploads::UploadsConfig;
use nix_csi::actors::volume::{Request, VolumeError};
use nix_csi::health::Health;
use nix_csi::k8s::fake::FakeApi;
use nix_csi::model::{Access, Layout, Source, StorePath, TargetPath, VolumeId, VolumeSpec};
use nix_csi::mount::fake::FakeMounts;
use nix_csi::nix::fake::FakeNix;
use nix_csi::nix::{Origin, PushTo, Space};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::Instant;

pub const KEEP_IDLE: Duration = Duration::from_secs(600);
pub const REFRESH: Duration = Duration::from_secs(60);
pub const RETRY: Duration = Duration::from_secs(10);
pub const CANCEL_GRACE: Duration = Duration::from_secs(10);
pub const ABANDON_AFTER: Duration = Duration::from_secs(600);
pub const MAX_WAITING: usize = 3;
pub const UPLOAD_ATTEMPTS: u32 = 4;
pub const SWEEP_AFTER: Duration = Duration::from_secs(900);
pub const GC_OLDER_THAN: Duration = Duration::from_hours(1);
pub const GC_INTERVAL: Duration = Duration::from_mins(15);
pub const GC_GRACE: Duration = Duration::from_mins(10);
pub const GC_LOOK: Duration = Duration::from_secs(10);
pub const GC_STEP: Duration = Duration::from_mins(10);
pub const KEEP_REFRESH: Duration = Duration::from_secs(3600);

const ROOMY: Space =
    Space { bytes: 1_000_000, free_bytes: 900_000, inodes: 1_000_000, free_inodes: 900_000 };

/// What a driver is told to do otherwise than others.
#[derive(Clone, Copy, Default)]
pub struct Settings<'a> {
    pub upload_derivations: bool,
    pub keep: &'a [Source],
    pub keep_file: Option<&'a Path>,
    pub keep_idle: Option<Duration>,
    /// It heeds a policy.
    pub policy: bool,
    /// It mounts nothing for pods without one.
    pub policy_required: bool,
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub nix: FakeNix,
    pub mounts: FakeMounts,
    pub api: FakeApi,
    pub health: Health,
    look: Duration,
    pub actors: NodeActors,
}

/// Runs a test with a fresh node's actors.
pub async fn with_world<F: Future>(test: impl FnOnce(World) -> F) {
    with_world_for(Duration::from_hours(24), test).await;
}

/// The same, on the paused clock for so long: a test that waits for what never comes fails instead of
/// ticking on.
pub async fn with_world_for<F: Future>(limit: Duration, test: impl FnOnce(World) -> F) {
    with_looks(limit, Duration::from_hours(1), test).await;
}

/// The same with a collector that looks at the disk so often.
pub async fn with_looks<F: Future>(limit: Duration, look: Duration, test: impl FnOnce(World) -> F) {
    let limited = tokio::time::timeout(limit, async { test(World::new(look)).await });
    LocalSet::new().run_until(limited).await.expect("the test waits for what never comes");
}

impl World {
    fn new(look: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nix = FakeNix::new(dir.path()).unwrap();
        let mounts = FakeMounts::new();
        let api = FakeApi::default();
        nix.set_roots_dirs(&[&dir.path().join("roots")]);
        nix.set_space(ROOMY); // how full this machine's disk is, is no matter of these tests
        let health = Health::default();
        let settings = Settings::default();
        let actors = start(dir.path(), &nix, &mounts, &api, (&health, look), settings);
        Self { dir, nix, mounts, api, health, look, actors }
    }

    /// Another driver after this one was killed: same disk, same kernel, no memory.
    pub fn restarted(&self) -> NodeActors {
        self.restarted_with(Settings::default())
    }

    pub fn restarted_with(&self, settings: Settings<'_>) -> NodeActors {
        let World { dir, nix, mounts, api, health, .. } = self;
        start(dir.path(), nix, mounts, api, (health, self.look), settings)
    }

    /// The same with a driver that uploads derivations.
    pub fn uploads_derivations(&mut self) {
        let settings = Settings { upload_derivations: true, ..Settings::default() };
        self.actors = self.restarted_with(settings);
    }

    /// The same with a driver that heeds a policy.
    pub fn heeds_policy(&mut self) {
        self.actors = self.restarted_with(Settings { policy: true, ..Settings::default() });
    }

    /// The same with a driver that lets go of idle views after so long.
    pub fn keeps_views(&mut self, keep_idle: Duration) {
        let settings = Settings { keep_idle: Some(keep_idle), ..Settings::default() };
        self.actors = self.restarted_with(settings);
    }

    pub fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    pub fn names(&self, sub: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join(sub)).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A closure that has to be built first, and the expression that builds it.
    pub fn buildable(&self, name: &str) -> Source {
        let root = self.nix.add_closure(name, 3).unwrap();
        let source = Source::NixExpr(name.to_owned());
        self.nix.answer(source.clone(), root, Origin::Built);
        source
    }

    pub async fn publish(&self, name: &str, source: &Source) -> Result<(), Arc<VolumeError>> {
        self.actors.directory.publish(&id(name), request(name, source)).await
    }

    pub async fn unpublish(&self, name: &str) -> Result<(), Arc<VolumeError>> {
        self.actors.directory.unpublish(&id(name), target(name)).await
    }
}

fn start(
    dir: &Path,
    nix: &FakeNix,
    mounts: &FakeMounts,
    api: &FakeApi,
    (health, look): (&Health, Duration),
    settings: Settings<'_>,
) -> NodeActors {
    let used = Used::open(&dir.join("used.sqlite"), clock());
    let config = NodeActorsConfig {
        daemon: None,
        sshd: None,
        conf: None,
        synced: Vec::new(),
        records: dir.join("records"),
        roots: dir.join("roots"),
        boot_id: "boot".into(),
        evaluation_slots: 2,
        build_slots: 2,
        evaluation_builds: false,
        memory: MemoryConfig {
            refresh: REFRESH,
            retry_min: RETRY,
            retry_max: Duration::from_secs(300),
        },
        max_waiting: MAX_WAITING,
        cancel_grace: CANCEL_GRACE,
        abandon_after: ABANDON_AFTER,
        keep_idle: settings.keep_idle.unwrap_or(KEEP_IDLE),
        verify_interval: Duration::from_secs(300),
        cluster: Some(Arc::new(api.clone())),
        sweep_after: SWEEP_AFTER,
        uploads: Some(UploadsConfig {
            to: PushTo::Store { url: "ssh-ng://cache".to_owned(), signing_key: None },
            derivations: settings.upload_derivations,
            records: dir.join("uploads"),
            roots: dir.join("roots/uploads"),
            attempts: UPLOAD_ATTEMPTS,
            slots: 1,
            used: used.clone(),
        }),
        keeper: KeeperConfig {
            sources: settings.keep.to_vec(),
            file: settings.keep_file.map(Path::to_owned),
            record: dir.join("kept.json"),
            refresh: KEEP_REFRESH,
        },
        policy: settings.policy.then(|| PolicyConfig {
            source: PolicySource::ConfigMap {
                namespace: "nix-csi".into(),
                name: "policy".into(),
                api: Arc::new(api.clone()),
            },
            required: settings.policy_required,
            last_good: dir.join("policy.yaml"),
            health: health.clone(),
        }),
        grants: dir.join("grants"),
        gc: GcActorConfig {
            rules: Rules {
                older_than: Some(GC_OLDER_THAN),
                grace: GC_GRACE,
                watermarks: Some(Watermarks { high: 85, low: 80 }),
                step: GC_STEP,
                reading_is_use: false,
            },
            interval: GC_INTERVAL,
            look,
            after: &[],
        },
        used,
    };
    // Nobody listens: a core actor that gives up makes its test fail by itself.
    let (tell, _) = mpsc::unbounded_channel();
    let (nix, mounts) = (Arc::new(nix.clone()), Arc::new(mounts.clone()));
    NodeActors::start(config, nix, mounts, health, &tell).unwrap()
}

/// A wall clock that goes as the paused one does, through restarts.
pub fn clock() -> WallClock {
    thread_local!(static BEGAN: Instant = Instant::now());
    let began = BEGAN.with(|began| *began);
    Arc::new(move || 1_000_000_000 + began.elapsed().as_secs())
}

pub fn id(name: &str) -> VolumeId {
    VolumeId::parse(name).unwrap()
}

pub fn target(name: &str) -> TargetPath {
    TargetPath::parse("target_path", &format!("/t/{name}")).unwrap()
}

pub fn store_path(path: &StorePath) -> Source {
    Source::StorePath(path.clone())
}

pub fn request(name: &str, source: &Source) -> Request {
    let attributes = BTreeMap::from([(source.key().to_owned(), source.text())]);
    let access = Access::ReadOnly;
    let (source, layout) = (source.clone(), Layout::Plain);
    let spec = VolumeSpec {
        access,
        access_mode: 1,
        attributes: attributes.into(),
        source,
        pod: None,
        layout,
        size: None,
        secret: None,
        tokens: None,
    };
    Request { spec, target: target(name) }
}
