//! The registrar with a kubelet of the test's making.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use nix_csi::actors::node::start_registrar;
use nix_csi::actors::registrar::{Door, Doorway, Notice, RegistrarConfig, RegistrarHandle};
use nix_csi::health::{Condition, Health};
use nix_csi::k8s::ApiError;
use nix_csi::k8s::fake::{FakeApi, Fault};
use tokio::task::LocalSet;
use tokio::time::sleep;

const TAINT: &str = "nix.csi.store/agent-not-ready";

type Hear = Box<dyn Fn(Notice) + Send + Sync>;

/// The kubelet's directory, in which one driver may put its socket.
#[derive(Clone, Default)]
struct Registry(Arc<Inner>);

#[derive(Default)]
struct Inner {
    hear: Mutex<Option<Hear>>,
    openings: AtomicUsize,
    is_there: AtomicBool,
    fails: AtomicBool,
}

struct FakeDoor(Registry);

impl Doorway for Registry {
    fn open(&self, hear: Hear) -> BoxFuture<'static, Result<Box<dyn Door>, String>> {
        let this = self.clone();
        async move {
            if this.0.fails.load(Ordering::SeqCst) {
                return Err("the test says so".to_owned());
            }
            *this.0.hear.lock().unwrap() = Some(hear);
            this.0.openings.fetch_add(1, Ordering::SeqCst);
            this.0.is_there.store(true, Ordering::SeqCst);
            Ok(Box::new(FakeDoor(this)) as Box<dyn Door>)
        }
        .boxed()
    }
}

impl Door for FakeDoor {
    fn is_there(&self) -> bool {
        self.0.0.is_there.load(Ordering::SeqCst)
    }
}

impl Drop for FakeDoor {
    fn drop(&mut self) {
        self.0.0.is_there.store(false, Ordering::SeqCst);
    }
}

struct Scene {
    registry: Registry,
    api: FakeApi,
    health: Health,
    registrar: RegistrarHandle,
}

impl Scene {
    fn new() -> Self {
        let (registry, api) = (Registry::default(), FakeApi::default());
        let health = Health::waiting_for(&["rest", "kubelet"]);
        let registrar = start_registrar(RegistrarConfig {
            part: "kubelet",
            health: health.clone(),
            doorway: Arc::new(registry.clone()),
            api: Some(Arc::new(api.clone())),
            taint: Some(TAINT.to_owned()),
        });
        Self { registry, api, health, registrar }
    }

    /// A node whose other parts are ready.
    async fn open() -> Self {
        let scene = Self::new();
        scene.health.set("rest", &Condition::Ready);
        scene.pass(5).await;
        assert_eq!(scene.openings(), 1);
        scene
    }

    async fn pass(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    fn openings(&self) -> usize {
        self.registry.0.openings.load(Ordering::SeqCst)
    }

    fn says(&self, notice: Notice) {
        self.registry.0.hear.lock().unwrap().as_ref().unwrap()(notice);
    }

    fn is_ready(&self) -> bool {
        self.health.overall().0 == Condition::Ready
    }
}

async fn with_scene<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    LocalSet::new().run_until(async { test().await }).await;
}

#[tokio::test(start_paused = true)]
async fn the_kubelet_finds_the_driver_when_all_else_is_ready() {
    with_scene(|| async {
        let scene = Scene::new();
        scene.pass(60).await;
        assert_eq!(scene.openings(), 0, "the rest is not ready");
        scene.health.set("rest", &Condition::Ready);
        scene.pass(5).await;
        assert_eq!((scene.openings(), scene.is_ready()), (1, false));
        scene.says(Notice::Asked);
        scene.pass(1).await;
        assert!(!scene.is_ready(), "asked is not registered");
        scene.says(Notice::Registered);
        scene.api.list_driver(true);
        scene.pass(3600).await;
        assert_eq!((scene.openings(), scene.is_ready()), (1, true));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_registration_is_repeated() {
    with_scene(|| async {
        let scene = Scene::open().await;
        scene.says(Notice::Registered);
        scene.pass(1).await;
        scene.says(Notice::Refused("no".to_owned()));
        scene.pass(1).await;
        assert!(!scene.is_ready());
        scene.pass(5).await;
        assert_eq!(scene.openings(), 2);
        scene.says(Notice::Registered);
        scene.pass(1).await;
        assert!(scene.is_ready());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_is_gone_and_a_driver_that_is_not_listed_are_noticed() {
    with_scene(|| async {
        let scene = Scene::open().await;
        scene.api.list_driver(true);
        scene.says(Notice::Registered);
        scene.pass(600).await;
        scene.registry.0.is_there.store(false, Ordering::SeqCst);
        scene.pass(5).await;
        assert_eq!((scene.openings(), scene.is_ready()), (2, false));
        scene.says(Notice::Registered);
        scene.pass(5).await;
        assert!(scene.is_ready());
        // An API server that is down says nothing about the kubelet.
        let down = ApiError::Down { what: "ask", reason: "test".to_owned() };
        scene.api.set_fault(Some(Fault::Fails(down)));
        scene.pass(3600).await;
        assert_eq!(scene.openings(), 2);
        scene.api.set_fault(None);
        scene.api.list_driver(false);
        scene.pass(110).await;
        assert_eq!(scene.openings(), 3);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_says_nothing_and_a_socket_that_cannot_be_made_are_tried_again() {
    with_scene(|| async {
        let scene = Scene::open().await;
        scene.pass(40).await;
        assert_eq!(scene.openings(), 2);
        scene.registry.0.fails.store(true, Ordering::SeqCst);
        scene.pass(600).await;
        assert_eq!(scene.openings(), 2);
        scene.registry.0.fails.store(false, Ordering::SeqCst);
        scene.pass(120).await;
        assert!(scene.openings() > 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_taint_goes_only_after_the_registration_and_for_sure() {
    with_scene(|| async {
        let scene = Scene::open().await;
        scene.api.taint(TAINT);
        scene.api.taint("other");
        scene.pass(20).await;
        assert_eq!(scene.api.taints().len(), 2, "not registered");
        let conflict = ApiError::Conflict { what: "patch", reason: "test".to_owned() };
        scene.api.set_fault(Some(Fault::Fails(conflict)));
        scene.says(Notice::Registered);
        scene.pass(300).await;
        assert_eq!(scene.api.taints().len(), 2);
        scene.api.set_fault(None);
        scene.pass(120).await;
        assert_eq!(scene.api.taints(), ["other"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_takes_the_socket_away() {
    with_scene(|| async {
        let Scene { registry, registrar, .. } = Scene::open().await;
        assert!(registry.0.is_there.load(Ordering::SeqCst));
        registrar.stop().await;
        assert!(!registry.0.is_there.load(Ordering::SeqCst));
        sleep(Duration::from_secs(600)).await;
        assert_eq!(registry.0.openings.load(Ordering::SeqCst), 1);
    })
    .await;
}

/// A call of the kubelet's that came through a socket which is no more says nothing about its successor.
#[tokio::test(start_paused = true)]
async fn a_late_word_through_an_earlier_socket_does_not_count() {
    with_scene(|| async {
        let scene = Scene::open().await;
        let earlier = scene.registry.0.hear.lock().unwrap().take().unwrap();
        scene.registry.0.is_there.store(false, Ordering::SeqCst);
        scene.pass(5).await;
        assert_eq!(scene.openings(), 2);
        earlier(Notice::Registered);
        scene.pass(5).await;
        assert!(!scene.is_ready());
        scene.says(Notice::Registered);
        scene.pass(5).await;
        assert!(scene.is_ready());
    })
    .await;
}
