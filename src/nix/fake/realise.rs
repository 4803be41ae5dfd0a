//! The trait's functions on the stand-in.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use sha2::{Digest, Sha256};

use super::{Answer, Call, FakeNix, NAR_SIZE, reach};
use crate::model::{Closure, PathInfo, Source, StorePath, Viewer, Vouched};
use crate::nix::error::io_error;
use crate::nix::gc_lock::staging_name;
use crate::nix::{
    Buildable, ConfError, Evaluated, Lock, Nix, NixError, ProgressSink, PushError, PushTo,
    RealiseError, Realised, Slot, Step, db_write,
};

impl Nix for FakeNix {
    fn store_dir(&self) -> &Path {
        &self.store_dir
    }

    fn check_conf(&self, _: PathBuf, text: String) -> BoxFuture<'static, Result<(), ConfError>> {
        self.state().confs.push(text.clone());
        let verdict = match &*text {
            text if text.contains("nonsense") => {
                Err(ConfError::Refused("unknown setting 'nonsense'".to_owned()))
            }
            text if text.contains("later") => Err(ConfError::Unknown("no processes".to_owned())),
            _ => Ok(()),
        };
        ready(verdict).boxed()
    }

    fn lock(
        &self,
        reference: String,
        _: Viewer,
        _: ProgressSink,
    ) -> BoxFuture<'static, Result<Lock, RealiseError>> {
        let mut state = self.state();
        state.calls.entry(Source::FlakeRef(reference.clone())).or_default().locked += 1;
        let lock = state.locks.get(&reference).cloned();
        let unknown = || RealiseError::Temporary {
            step: Step::Fetch,
            cause: format!("the fake knows no {reference}"),
        };
        ready(lock.ok_or_else(unknown)).boxed()
    }

    fn evaluate(
        &self,
        source: Source,
        _: Viewer,
        root: PathBuf,
        _: ProgressSink,
    ) -> BoxFuture<'static, Result<Evaluated, RealiseError>> {
        self.state().calls.entry(source.clone()).or_default().evaluated += 1;
        ready(self.instantiate(&source, &root)).boxed()
    }

    fn realise(
        &self,
        (what, viewer): (Buildable, Viewer),
        root: PathBuf,
        progress: ProgressSink,
        slot: Slot,
    ) -> BoxFuture<'static, Result<Realised, RealiseError>> {
        let nix = self.clone();
        async move {
            let _slot = slot;
            let source = match what {
                Buildable::Path(path) => Source::StorePath(path),
                Buildable::Output { derivation, .. } => {
                    let source = nix.state().derivations.get(&derivation).cloned();
                    source.ok_or(NixError::NotValid { path: derivation })?
                }
            };
            let asks = viewer.fetch_from.as_ref().map(ToString::to_string);
            nix.state().asks.entry(source.clone()).or_default().push(asks);
            let mut running = Running::start(nix.clone(), source.clone());
            progress.update(|p| p.current = format!("realising {}", source.key()));
            let gate = nix.state().gates.get(&source).cloned();
            if let Some(mut gate) = gate {
                // A dropped gate lets everybody through.
                let _ = gate.wait_for(|open| *open).await;
            }
            let result = nix.result(&source, &root);
            running.finished = true;
            result
        }
        .boxed()
    }

    fn push(&self, paths: Vec<StorePath>, _: PushTo) -> BoxFuture<'static, Result<(), PushError>> {
        self.push_now(paths)
    }

    fn root_if_valid(&self, path: &StorePath, root: &Path) -> Result<bool, NixError> {
        self.check(Call::RootIfValid)?;
        // Held until the root is there: the fake's collector takes the same lock.
        let state = self.state();
        if !state.valid.contains_key(path) {
            if fs::read_link(root).is_ok_and(|t| t == Path::new(&path.to_string())) {
                fs::remove_file(root).map_err(|err| io_error("remove", root, err))?;
            }
            return Ok(false);
        }
        let staged = staging_name(root);
        symlink(path.to_string(), &staged).map_err(|err| io_error("create", &staged, err))?;
        fs::rename(&staged, root).map_err(|err| io_error("create", root, err))?;
        Ok(true)
    }

    fn closure(&self, root: &StorePath) -> Result<Closure, NixError> {
        self.check(Call::Closure)?;
        let state = self.state();
        if !state.valid.contains_key(root) {
            return Err(NixError::NotValid { path: root.clone() });
        }
        let info = |path| PathInfo { path, nar_size: NAR_SIZE };
        let paths = reach(&state.valid, root).into_iter().map(info).collect();
        let root = root.clone();
        Ok(Closure { root, paths })
    }

    fn vouched(&self, paths: &[StorePath]) -> Result<Vec<Vouched>, NixError> {
        let state = self.state();
        let vouched = |path: &StorePath| {
            let references = state.valid.get(path);
            let references = references.ok_or_else(|| NixError::NotValid { path: path.clone() })?;
            Ok(Vouched {
                path: path.clone(),
                sha256: Sha256::digest(path.base_name()).into(),
                nar_size: NAR_SIZE,
                references: references.clone(),
                signatures: state.signatures.get(path).cloned().unwrap_or_default(),
            })
        };
        paths.iter().map(vouched).collect()
    }

    fn write_database(&self, closure: &Closure, db_dir: &Path) -> Result<(), NixError> {
        self.check(Call::WriteDatabase)?;
        fs::create_dir_all(db_dir).map_err(|err| io_error("create", db_dir, err))?;
        let file = db_dir.join("db.sqlite");
        let write = || -> rusqlite::Result<()> {
            let connection = db_write::create(&file)?;
            for info in &closure.paths {
                connection.execute(
                    "insert into ValidPaths (path, hash, registrationTime) values (?1, 'sha256:0', 1)",
                    [info.path.to_string()],
                )?;
            }
            connection.execute_batch("commit")
        };
        write().map_err(|source| NixError::Database {
            verb: "write",
            path: file.clone(),
            source,
        })?;
        db_write::finish(&file, db_dir)
    }
}

impl FakeNix {
    /// A derivation of `source`; like one that is content-addressed, it says no output's path in
    /// advance. A fault of the evaluation shows here.
    fn instantiate(&self, source: &Source, root: &Path) -> Result<Evaluated, RealiseError> {
        let answer = self.state().answers.get(source).cloned();
        match answer {
            Some(Answer::Fault(fault)) => match fault() {
                error @ RealiseError::Refused { .. } => return Err(error),
                _later => {}
            },
            Some(Answer::Path(_)) => {}
            None => {
                let (step, cause) = (Step::Evaluate, "the fake knows no answer".to_owned());
                return Err(RealiseError::Refused { step, cause, hint: None });
            }
        }
        let digest = hex::encode(&Sha256::digest(source.text())[..8]);
        let derivation = self.add_path(&format!("{digest}.drv"), &[])?;
        self.state().derivations.insert(derivation.clone(), source.clone());
        self.root_if_valid(&derivation, root)?;
        let output = "out".to_owned();
        Ok(Evaluated { buildable: Buildable::Output { derivation, output }, path: None })
    }
}

/// Counts one realisation, also when it is dropped.
struct Running {
    nix: FakeNix,
    source: Source,
    finished: bool,
}

impl Running {
    fn start(nix: FakeNix, source: Source) -> Self {
        nix.state().calls.entry(source.clone()).or_default().started += 1;
        Self { nix, source, finished: false }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.nix.state();
        let calls = state.calls.entry(self.source.clone()).or_default();
        if self.finished {
            calls.finished += 1;
        } else {
            calls.cancelled += 1;
        }
    }
}
