//! The actor and its messages.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Handler, Message, ResponseFuture};
use tokio::time::{Instant, sleep};

use super::effects::Hands;
use super::lease::{Lease, Leases};
use super::metrics;
use crate::actors::core::{ActorGone, Ctx, Reply, answer_all, deferred, impl_supervised, tell};
use crate::actors::gc::used::Used;
use crate::actors::volume::ViewError;
use crate::model::StorePath;
use crate::mount::{Mounts, View, ViewId};
use crate::nix::Nix;

/// A view for this closure, made if there is none.
#[derive(Message)]
#[rtype(result = "Acquired")]
pub struct Acquire(pub StorePath);

/// `Ok(None)`: the path is not valid in the store, realise it first.
pub type Acquired = Result<Option<Arc<Lease>>, Arc<ViewError>>;

/// The view that a volume's record names. `Ok(None)`: it is no longer there.
#[derive(Message)]
#[rtype(result = "Adopted")]
pub struct Adopt(pub ViewId);

pub type Adopted = Result<Option<Arc<Lease>>, ActorGone>;

#[derive(Message)]
#[rtype(result = "Vec<ViewSummary>")]
pub struct ListViews;

#[derive(Debug, Clone)]
pub struct ViewSummary {
    pub view: Arc<View>,
    pub users: usize,
    /// Store paths that were replaced below the mounted view.
    pub replaced: Vec<StorePath>,
}

/// How long views of an earlier process wait for who holds them now, however short the idle time is.
const TAKE_OVER: Duration = Duration::from_secs(1);

#[derive(Message)]
#[rtype(result = "()")]
struct Tick;

#[derive(Debug)]
pub struct ViewsConfig {
    /// Where the views' GC roots are; below the store's `gcroots`.
    pub roots: PathBuf,
    /// How long a view without users is kept for the next volume.
    pub keep_idle: Duration,
    /// How often mounted views are compared with the store.
    pub verify_interval: Duration,
    pub used: Used,
}

pub(super) struct Ready {
    pub(super) view: Arc<View>,
    pub(super) idle_since: Option<Instant>,
    /// Being removed; whoever adopts it meanwhile waits, since a mount may forbid the removal.
    pub(super) removing: Option<Vec<Reply<Adopted>>>,
    replaced: Vec<StorePath>,
}

pub struct Views {
    pub(super) hands: Hands,
    pub(super) config: ViewsConfig,
    pub(super) leases: Leases,
    /// The view that the next volume of this closure gets.
    pub(super) current: HashMap<StorePath, ViewId>,
    pub(super) ready: HashMap<ViewId, Ready>,
    making: HashMap<StorePath, Vec<Reply<Acquired>>>,
    /// Views of which there may be something on disk already.
    pub(super) unfinished: HashSet<ViewId>,
    /// Numbers views of one closure; greater than any on disk.
    next: u64,
    verified: Instant,
    /// When the mounts were counted last.
    pub(super) counted: Option<Instant>,
}

impl_supervised!(Views, "views", |this| {
    this.current.clear();
    this.ready.clear();
    this.making.clear();
    this.unfinished.clear();
});

impl Views {
    pub fn new(nix: Arc<dyn Nix>, mounts: Arc<dyn Mounts>, config: ViewsConfig) -> Self {
        Self {
            hands: Hands::new(nix, mounts, &config),
            config,
            leases: Leases::default(),
            current: HashMap::new(),
            ready: HashMap::new(),
            making: HashMap::new(),
            unfinished: HashSet::new(),
            next: 0,
            verified: Instant::now(),
            counted: None,
        }
    }

    fn tick_interval(&self) -> Duration {
        let shorter = self.config.keep_idle.min(self.config.verify_interval) / 2;
        shorter.clamp(Duration::from_millis(100), Duration::from_secs(30))
    }

    fn insert(&mut self, view: View) -> Arc<View> {
        let view = Arc::new(view);
        self.current.insert(view.root.clone(), view.id.clone());
        let idle_since = Some(Instant::now());
        let ready = Ready { view: view.clone(), idle_since, removing: None, replaced: vec![] };
        self.ready.insert(view.id.clone(), ready);
        view
    }

    fn make(&mut self, root: StorePath, reply: Reply<Acquired>, ctx: &mut Ctx<Self>) {
        self.making.insert(root.clone(), vec![reply]);
        let id = ViewId::new(&root, self.next);
        self.next += 1;
        self.unfinished.insert(id.clone());
        let effect = self.hands.clone().make(id.clone(), root.clone());
        ctx.effect(effect, move |this, made, _| {
            this.made(&root, made);
            this.unfinished.remove(&id);
        });
    }

    fn made(&mut self, root: &StorePath, made: Result<Option<View>, ViewError>) {
        let waiters = self.making.remove(root).unwrap_or_default();
        match made {
            Ok(Some(view)) => {
                let view = self.insert(view);
                for waiter in waiters {
                    waiter.send(Ok(Some(self.leases.grant(&view, false))));
                }
            }
            Ok(None) => answer_all(waiters, &Ok(None)),
            Err(error) => {
                let error = Arc::new(error);
                answer_all(waiters, &Err(error));
            }
        }
    }

    fn verify(&mut self, ctx: &mut Ctx<Self>) {
        self.verified = Instant::now();
        let all = self.ready.iter().filter(|(_, r)| r.removing.is_none());
        let all = all.map(|(id, _)| id.clone()).collect();
        ctx.effect(self.hands.clone().replaced(all), |this, found, _| {
            for (id, found) in found {
                match found {
                    Ok(replaced) => this.found_replaced(&id, replaced),
                    Err(error) => tracing::warn!(view = id.as_str(), %error, "can't verify a view"),
                }
            }
        });
    }

    /// The view's users may see ENOENT until caches drop; new volumes get a new view.
    fn found_replaced(&mut self, id: &ViewId, replaced: Vec<StorePath>) {
        let Some(ready) = self.ready.get_mut(id) else {
            return;
        };
        if !replaced.is_empty() && replaced != ready.replaced {
            tracing::error!(
                view = id.as_str(),
                ?replaced,
                "store paths were replaced below a mounted view; its pods may not see them: \
                 restart those pods, and keep repairs and other collectors away from this store"
            );
            metrics::VIEW_PATHS_REPLACED.inc_by(replaced.len() as u64);
            self.current.retain(|_, current| current != id);
        }
        ready.replaced = replaced;
    }
}

impl Actor for Views {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // The mailbox waits: nobody acquires before what is there is known.
        let recover = actix::fut::wrap_future::<_, Self>(self.hands.clone().recover());
        ctx.wait(actix::ActorFutureExt::map(
            recover,
            |found, this: &mut Self, ctx: &mut Ctx<Self>| match found {
                Ok(mut views) => {
                    // The newest of a root becomes the current one.
                    views.sort_by_key(|(view, _)| view.id.number());
                    for (view, replaced) in views {
                        this.next = this.next.max(view.id.number() + 1);
                        let view = this.insert(view);
                        this.found_replaced(&view.id, replaced);
                    }
                    ctx.effect(sleep(TAKE_OVER), |_, (), ctx| tell(&ctx.address(), Tick));
                }
                Err(error) => ctx.fail(format!("can't read the views: {error}")),
            },
        ));
    }
}

impl Handler<Acquire> for Views {
    type Result = ResponseFuture<Acquired>;

    fn handle(&mut self, Acquire(root): Acquire, ctx: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        if let Some(ready) = self.current.get(&root).and_then(|id| self.ready.get_mut(id)) {
            ready.idle_since = None;
            reply.send(Ok(Some(self.leases.grant(&ready.view, true))));
        } else if let Some(waiters) = self.making.get_mut(&root) {
            waiters.push(reply);
        } else {
            self.make(root, reply, ctx);
        }
        answer
    }
}

impl Handler<Adopt> for Views {
    type Result = ResponseFuture<Adopted>;

    fn handle(&mut self, Adopt(id): Adopt, _: &mut Ctx<Self>) -> Self::Result {
        let (reply, answer) = deferred::<Self, _, _>();
        match self.ready.get_mut(&id) {
            None => reply.send(Ok(None)),
            Some(Ready { removing: Some(adopters), .. }) => adopters.push(reply),
            Some(ready) => {
                ready.idle_since = None;
                reply.send(Ok(Some(self.leases.grant(&ready.view, true))));
            }
        }
        answer
    }
}

impl Handler<ListViews> for Views {
    type Result = Vec<ViewSummary>;

    fn handle(&mut self, _: ListViews, _: &mut Ctx<Self>) -> Self::Result {
        let summary = |ready: &Ready| ViewSummary {
            view: ready.view.clone(),
            users: self.leases.users(&ready.view.id),
            replaced: ready.replaced.clone(),
        };
        self.ready.values().map(summary).collect()
    }
}

impl Handler<Tick> for Views {
    type Result = ();

    fn handle(&mut self, _: Tick, ctx: &mut Ctx<Self>) {
        drop(self.evict(self.config.keep_idle, ctx)); // it goes on by itself
        self.count_mounts(ctx);
        if self.verified.elapsed() >= self.config.verify_interval {
            self.verify(ctx);
        }
        let interval = self.tick_interval();
        ctx.effect(sleep(interval), |_, (), ctx| tell(&ctx.address(), Tick));
    }
}
