//! The actor.

use actix::{Actor, Addr, Handler};

use super::conf::{self, Judged, NixConf};
use super::sync::{Item, Known, Outcome, directory, sync};
use super::watch::{Look, Looking, follow};
use crate::actors::child::{ChildProcess, Renew};
use crate::actors::core::{Ctx, blocking, impl_supervised, tell};
use crate::actors::metrics;
use crate::health::{Condition, Health};

#[derive(Clone)]
pub struct ReconcilerConfig {
    pub items: Vec<Item>,
    /// The operator's, if there may be one.
    pub conf: Option<NixConf>,
    /// Ours, which reads a nix.conf at its start only.
    pub daemon: Option<Addr<ChildProcess>>,
    /// Its part of the health: ready once everything was looked at.
    pub part: &'static str,
    pub health: Health,
}

pub struct ConfigReconciler {
    config: ReconcilerConfig,
    known: Vec<Known>,
    judged: Judged,
    files: Looking,
    /// Apart from the files: Nix may take its time, and a key that is revoked must not wait for it.
    conf: Looking,
    /// Something may have been replaced that nix-daemon was not told of.
    is_anew: bool,
}

impl_supervised!(ConfigReconciler, "reconciler", |this| {
    this.known.fill(Known::default());
    this.judged = Judged::default();
    (this.files, this.conf) = (Looking::default(), Looking::default());
    this.is_anew = true;
});

impl ConfigReconciler {
    pub fn new(config: ReconcilerConfig) -> Self {
        let known = vec![Known::default(); config.items.len()];
        let judged = Judged::default();
        let (files, conf) = (Looking::default(), Looking::default());
        Self { config, known, judged, files, conf, is_anew: false }
    }

    fn looked(&mut self, outcomes: Vec<Outcome>) {
        for ((item, known), outcome) in self.config.items.iter().zip(&mut self.known).zip(outcomes)
        {
            outcome.tell(item);
            *known = outcome.known;
        }
    }

    fn judged(&mut self, judged: Judged, is_new: bool) {
        let told = self.judged.refused();
        if let Some(refused) = judged.refused().filter(|refused| told != Some(*refused)) {
            tracing::warn!(kind = conf::KIND, "{refused}; what was good last stays");
        }
        let refused = i64::from(judged.refused().is_some());
        metrics::CONFIG_REFUSED.with_label_values(&[conf::KIND]).set(refused);
        self.judged = judged;
        if is_new {
            tracing::info!(kind = conf::KIND, "brought up to date");
            metrics::CONFIG_WRITES.with_label_values(&[conf::KIND]).inc();
        }
        if (is_new || std::mem::take(&mut self.is_anew))
            && let Some(daemon) = &self.config.daemon
        {
            tell(daemon, Renew);
        }
    }

    fn look_at_files(&mut self, ctx: &mut Ctx<Self>) {
        if !self.files.begin() {
            return;
        }
        let (items, known) = (self.config.items.clone(), self.known.clone());
        let look = blocking(move || {
            items.iter().zip(&known).map(|(item, known)| sync(item, known)).collect::<Vec<_>>()
        });
        ctx.effect(look, |this, outcomes, ctx| {
            match outcomes {
                Ok(outcomes) => this.looked(outcomes),
                Err(panic) => return ctx.fail(format!("reading the configuration: {panic}")),
            }
            this.config.health.set(this.config.part, &Condition::Ready);
            if this.files.end() {
                this.look_at_files(ctx);
            }
        });
    }

    fn look_at_conf(&mut self, ctx: &mut Ctx<Self>) {
        let Some(conf) = self.config.conf.clone() else {
            return;
        };
        if !self.conf.begin() {
            return;
        }
        ctx.effect(conf.sync(self.judged.clone()), |this, (judged, is_new), ctx| {
            this.judged(judged, is_new);
            if this.conf.end() {
                this.look_at_conf(ctx);
            }
        });
    }
}

impl Actor for ConfigReconciler {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let sources = self.config.items.iter().map(|item| item.kind.watched(&item.source));
        let conf = self.config.conf.iter().map(|conf| directory(&conf.source));
        follow(sources.chain(conf).collect(), ctx);
    }
}

impl Handler<Look> for ConfigReconciler {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Ctx<Self>) {
        self.look_at_files(ctx);
        self.look_at_conf(ctx);
    }
}
