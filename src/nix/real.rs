//! An installed Nix.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::io::Errno;

use crate::lock::lock;
use crate::model::{
    Announcement, Closure, FetchFrom, PodTokens, Secret, Source, StorePath, Viewer, Vouched,
};

use super::command::{self, Config};
use super::db::Database;
use super::eval_programs::Programs;
use super::evaluator::Tokens;
use super::gc_lock::GcLock;
use super::stall::Heard;
use super::substituters::{self, Choice, Substituters};
use super::tenant_dirs::TenantDirs;
use super::{
    Buildable, Capabilities, ConfError, Evaluated, Lock, Nix, NixError, ProgressSink, PushError,
    PushTo, RealiseError, Realised, Slot, db_write, evaluate, exchange, process, push, realise,
};

/// Drives the `nix` command, and reads the store's database and GC lock beside it.
#[derive(Clone)]
pub struct RealNix(Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: Config,
    /// None are known before [`RealNix::check_settings`].
    substituters: Mutex<Option<Substituters>>,
    database: Database,
    capabilities: OnceLock<Capabilities>,
    pub(super) heard: Heard,
    /// What a builder's sshd says of it.
    announced: OnceLock<Announcement>,
    /// The access tokens that were good last: in no second file.
    tokens: Mutex<Option<Tokens>>,
    pub(super) tenant_dirs: TenantDirs,
    pub(super) programs: Programs,
}

impl RealNix {
    /// Opens nothing yet: the store may appear later.
    pub fn open(config: Config) -> Self {
        Self(Arc::new(Inner {
            database: Database::new(&config.state_dir),
            substituters: Mutex::default(),
            capabilities: OnceLock::new(),
            heard: Heard::default(),
            announced: OnceLock::new(),
            tokens: Mutex::default(),
            tenant_dirs: TenantDirs::default(),
            programs: Programs::default(),
            config,
        }))
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The substituters to probe before each realisation, from Nix's effective settings.
    pub(super) fn use_substituters_of(&self, json: &[u8]) {
        let config = &self.0.config;
        let urls = substituters::effective(json).unwrap_or_default();
        let mut known = self.0.known_substituters();
        // What is known of the same ones stays.
        if known.as_ref().is_none_or(|known| !known.are(&urls)) {
            let (environment, cache) = (&config.environment, config.cache.as_deref());
            *known = Some(Substituters::new(urls, config.probe, environment, cache));
        }
    }

    pub(super) fn database(&self) -> &Database {
        &self.0.database
    }

    pub(super) fn announced(&self) -> &OnceLock<Announcement> {
        &self.0.announced
    }

    /// The socket of a daemon that is not ours, if there is one: our own is not there yet when a node
    /// starts, and would do the same.
    pub(super) fn served_by_others(&self) -> Option<PathBuf> {
        self.0.config.daemon_socket.clone().filter(|_| self.0.config.daemon_lent)
    }

    /// What this Nix is; asks it once. Until then the least is assumed.
    pub async fn probe(&self) -> Result<Capabilities, NixError> {
        if let Some(known) = self.0.capabilities.get() {
            return Ok(*known);
        }
        let program = &self.0.config.program;
        // A guard would say so of itself.
        if !process::find(program, &self.0.config.search_path).is_file() {
            let program = program.display().to_string();
            return Err(NixError::Spawn { program, source: Errno::NOENT.into() });
        }
        // Whatever an operator's nix.conf has is looked at later.
        let config = Config { conf: None, ..self.0.config.clone() };
        let spec = command::spec(&config, config.program.clone(), vec!["--version".into()]);
        let stdout = process::output(&spec, "nix --version").await?;
        let line = String::from_utf8_lossy(&stdout);
        let found = Capabilities::parse(&line).ok_or_else(|| NixError::Command {
            what: "nix --version".to_owned(),
            detail: format!("{:?} names no known version", line.lines().next().unwrap_or_default()),
        })?;
        Ok(*self.0.capabilities.get_or_init(|| found))
    }
}

impl Nix for RealNix {
    fn store_dir(&self) -> &Path {
        &self.0.config.store_dir
    }

    fn lock(
        &self,
        reference: String,
        viewer: Viewer,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<Lock, RealiseError>> {
        evaluate::lock(self.0.clone(), reference, viewer, progress).boxed()
    }

    fn evaluate(
        &self,
        source: Source,
        viewer: Viewer,
        root: PathBuf,
        progress: ProgressSink,
    ) -> BoxFuture<'static, Result<Evaluated, RealiseError>> {
        evaluate::evaluate(self.0.clone(), source, viewer, root, progress).boxed()
    }

    fn exchange(
        &self,
        tokens: PodTokens,
    ) -> BoxFuture<'static, Result<Option<Secret>, RealiseError>> {
        exchange::exchange(self.0.clone(), tokens).boxed()
    }

    fn realise(
        &self,
        what: (Buildable, Viewer),
        root: PathBuf,
        progress: ProgressSink,
        slot: Slot,
    ) -> BoxFuture<'static, Result<Realised, RealiseError>> {
        realise::realise(self.0.clone(), what, root, progress, slot).boxed()
    }

    fn push(&self, paths: Vec<StorePath>, to: PushTo) -> BoxFuture<'static, Result<(), PushError>> {
        push::push(self.0.clone(), paths, to).boxed()
    }

    fn check_conf(
        &self,
        candidate: PathBuf,
        text: String,
    ) -> BoxFuture<'static, Result<(), ConfError>> {
        let nix = self.clone();
        async move { nix.take_conf(candidate, text).await }.boxed()
    }

    fn conf_changed(&self) -> BoxFuture<'static, ()> {
        let nix = self.clone();
        async move { RealNix::conf_changed(&nix).await }.boxed()
    }

    fn unknown_substituters(&self, from: &FetchFrom) -> Vec<String> {
        self.0.known_substituters().as_ref().map(|known| known.lack(from)).unwrap_or_default()
    }

    fn substituters_down(&self) -> usize {
        self.0.known_substituters().as_ref().map_or(0, Substituters::down)
    }

    fn root_if_valid(&self, path: &StorePath, root: &Path) -> Result<bool, NixError> {
        self.0.place(path, root)
    }

    fn closure(&self, root: &StorePath) -> Result<Closure, NixError> {
        self.0.database.closure(root)
    }

    fn vouched(&self, paths: &[StorePath]) -> Result<Vec<Vouched>, NixError> {
        self.0.database.vouched(paths)
    }

    fn write_database(&self, closure: &Closure, db_dir: &Path) -> Result<(), NixError> {
        db_write::write(&self.0.database, closure, db_dir)
    }
}

impl Inner {
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Blocking. The first of `paths` that is not valid.
    pub(super) fn first_invalid(&self, paths: &[StorePath]) -> Result<Option<StorePath>, NixError> {
        for path in paths {
            if !self.database.is_valid(path)? {
                return Ok(Some(path.clone()));
            }
        }
        Ok(None)
    }

    /// Blocking. All paths of the closures, each once.
    pub(super) fn closures(&self, roots: &[StorePath]) -> Result<BTreeSet<StorePath>, NixError> {
        let mut all = BTreeSet::new();
        for root in roots {
            all.extend(self.database.closure(root)?.paths.into_iter().map(|info| info.path));
        }
        Ok(all)
    }

    /// Blocking. See [`GcLock::place`].
    pub(super) fn place(&self, path: &StorePath, root: &Path) -> Result<bool, NixError> {
        // A daemon's collector may be of another version than our client.
        let rechecks = self.config.daemon_socket.is_none()
            && self.capabilities.get().is_some_and(|c| c.collector_rechecks);
        let gc = GcLock::new(&self.config.state_dir, rechecks);
        gc.place(path, root, || self.database.is_valid(path))
    }

    pub(super) fn known_substituters(&self) -> MutexGuard<'_, Option<Substituters>> {
        lock(&self.substituters)
    }

    /// The access tokens as they are, or were when they were good last.
    pub(super) fn tokens(&self) -> Result<Tokens, NixError> {
        let mut last = lock(&self.tokens);
        match (self.config.evaluator.tokens(), &*last) {
            (Ok(tokens), _) => {
                *last = Some(tokens.clone());
                Ok(tokens)
            }
            (Err(error), Some(tokens)) => {
                tracing::warn!(%error, "--access-tokens-file: what was good last counts");
                Ok(tokens.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// Whether what Nix has fetched `from` there came from the node's cache.
    pub(super) fn is_cache(&self, from: &str) -> bool {
        self.known_substituters().as_ref().is_some_and(|known| known.is_cache(from))
    }

    /// The substituters that may be asked, as Nix takes them; none that is not known.
    pub(super) fn allowed(&self, from: &FetchFrom) -> String {
        self.known_substituters().as_ref().map(|known| known.allowed(from)).unwrap_or_default()
    }

    /// Which substituters answer, of those that may be asked.
    pub(super) async fn substituters(&self, from: &Option<FetchFrom>) -> Choice {
        let known = self.known_substituters().clone();
        match known {
            Some(substituters) => substituters.choose(from.as_ref()).await,
            None => Choice { limited: from.clone(), ..Choice::default() },
        }
    }

    /// The same after a command failed.
    pub(super) async fn substituters_again(&self, from: &Option<FetchFrom>) -> Choice {
        if let Some(substituters) = &*self.known_substituters() {
            substituters.doubt();
        }
        self.substituters(from).await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_netrc_with_other_letters_has_its_secrets_too() {
        let dir = tempfile::tempdir().unwrap();
        let netrc = dir.path().join("netrc");
        fs::write(&netrc, b"# Schl\xfcssel\nmachine h login u password s3cret-word\n").unwrap();
        let mut config = Config::new(dir.path());
        config.nix_options.push(("netrc-file".to_owned(), netrc.display().to_string()));
        let redactor = RealNix::open(config).0.redactor(&Tokens::default(), None);
        assert_eq!(redactor.clean("it said s3cret-word"), "it said ***");
    }

    #[test]
    fn tokens_that_were_good_last_count() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let mut config = Config::new(dir.path());
        config.evaluator.access_tokens = Some(file.clone());
        let nix = RealNix::open(config);
        let secrets = || nix.0.tokens().map(|tokens| tokens.secrets());
        secrets().unwrap_err();
        fs::write(&file, "<html>").unwrap();
        assert!(secrets().unwrap_err().to_string().contains("write HOST=TOKEN"));
        fs::write(&file, "a.b=s3cret").unwrap();
        assert_eq!(secrets().unwrap(), ["s3cret"]);
        fs::write(&file, "<html>").unwrap();
        assert_eq!(secrets().unwrap(), ["s3cret"]);
        fs::remove_file(&file).unwrap();
        assert_eq!(secrets().unwrap(), ["s3cret"]);
        // Taken back.
        fs::write(&file, "").unwrap();
        assert_eq!(secrets().unwrap(), [""; 0]);
    }
}
