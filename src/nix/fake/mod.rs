//! A stand-in for Nix: state in memory, store paths as real files in a directory, so that real
//! views can be made of them. Faults, gates and counters are there for tests of the rooms above.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::lock::lock;
use crate::model::{Source, StorePath};

use super::error::io_error;
use super::{Lock, Nix, NixError, Origin, RealiseError, Realised, Step};

mod garbage;
mod pushes;
mod realise;

pub use garbage::NAR_SIZE;

/// Makes a fault each time it is due.
type Fault<E> = Arc<dyn Fn() -> E + Send + Sync>;

#[derive(Clone)]
enum Answer {
    Path(Realised),
    Fault(Fault<RealiseError>),
}

/// How often one source was evaluated, and how often its realisation was begun and how it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    pub evaluated: usize,
    /// How often a reference was looked up.
    pub locked: usize,
    pub started: usize,
    pub finished: usize,
    /// Dropped before the end.
    pub cancelled: usize,
}

/// The calls of [`Nix`] that block, and those of [`super::Garbage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    RootIfValid,
    Closure,
    WriteDatabase,
    Roots,
    Graph,
    Delete,
    Space,
    Frees,
    Sole,
}

#[derive(Default)]
struct State {
    /// Valid paths and what they refer to.
    valid: BTreeMap<StorePath, Vec<StorePath>>,
    answers: HashMap<Source, Answer>,
    gates: HashMap<Source, watch::Receiver<bool>>,
    calls: HashMap<Source, Calls>,
    /// Whom each realisation was to ask.
    asks: HashMap<Source, Vec<Option<String>>>,
    faults: HashMap<Call, Fault<NixError>>,
    /// What derivations were made from.
    derivations: HashMap<StorePath, Source>,
    locks: HashMap<String, Lock>,
    signatures: HashMap<StorePath, Vec<String>>,
    pushes: pushes::Pushes,
    collector: garbage::Collector,
    /// Each nix.conf that was to be checked.
    confs: Vec<String>,
}

/// See the module. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct FakeNix {
    store_dir: PathBuf,
    state: Arc<Mutex<State>>,
}

/// Holds what waits for it until it is released or dropped.
pub struct Gate(watch::Sender<bool>);

impl Gate {
    pub fn release(self) {
        self.0.send_replace(true);
    }
}

impl FakeNix {
    /// The store is made at `dir/store`.
    pub fn new(dir: &Path) -> Result<Self, NixError> {
        let store_dir = dir.join("store");
        fs::create_dir_all(&store_dir).map_err(|err| io_error("create", &store_dir, err))?;
        Ok(Self { store_dir, state: Arc::default() })
    }

    /// Each nix.conf that was to be checked; it refuses those with the word `nonsense`, and can't
    /// tell of those with `later`.
    pub fn checked_confs(&self) -> Vec<String> {
        self.state().confs.clone()
    }

    /// Adds a valid path: a directory with a program, a text and a link to each reference, or for a
    /// name that ends in `.txt` a plain file.
    pub fn add_path(&self, name: &str, references: &[StorePath]) -> Result<StorePath, NixError> {
        let path = path_of(name, references)?;
        let dir = self.store_dir.join(path.base_name());
        self.state().valid.insert(path.clone(), references.to_vec());
        if fs::symlink_metadata(&dir).is_ok() {
            return Ok(path);
        }
        let write = || -> std::io::Result<()> {
            if name.strip_suffix(".txt").is_some() {
                return fs::write(&dir, format!("text of {name}\n"));
            }
            fs::create_dir_all(dir.join("bin"))?;
            fs::write(dir.join("bin").join(name), format!("program {name}\n"))?;
            fs::write(dir.join("name"), format!("{name}\n"))?;
            for reference in references {
                symlink(reference.to_string(), dir.join(reference.name()))?;
            }
            Ok(())
        };
        write().map_err(|err| io_error("write", &dir, err))?;
        Ok(path)
    }

    /// Adds a closure of `paths` paths named `name-…`, each referring to the one before, one of them
    /// a plain file if there are more than two; gives its root, named `name`.
    pub fn add_closure(&self, name: &str, paths: usize) -> Result<StorePath, NixError> {
        let mut references = Vec::new();
        for number in 1..paths {
            let kind = if number == 1 && paths > 2 { ".txt" } else { "" };
            references = vec![self.add_path(&format!("{name}-{number}{kind}"), &references)?];
        }
        self.add_path(name, &references)
    }

    /// From now on `source` is realised as `path`.
    pub fn answer(&self, source: Source, path: StorePath, origin: Origin) {
        self.answer_as(source, Realised { root: path, origin, in_cache: false });
    }

    /// From now on `source` is fetched as `path` from the node's cache; `origin` is how the cache came by it.
    pub fn answer_from_cache(&self, source: Source, path: StorePath, origin: Origin) {
        self.answer_as(source, Realised { root: path, origin, in_cache: true });
    }

    fn answer_as(&self, source: Source, realised: Realised) {
        self.state().answers.insert(source, Answer::Path(realised));
    }

    /// From now on realising `source` fails.
    pub fn fail(&self, source: Source, fault: impl Fn() -> RealiseError + Send + Sync + 'static) {
        let answer = Answer::Fault(Arc::new(fault));
        self.state().answers.insert(source, answer);
    }

    /// From now on a mutable reference names this.
    pub fn lock_to(&self, reference: &str, lock: Lock) {
        self.state().locks.insert(reference.to_owned(), lock);
    }

    /// From now on nobody says what it names.
    pub fn forget_lock(&self, reference: &str) {
        self.state().locks.remove(reference);
    }

    /// From now on the path has these.
    pub fn sign(&self, path: &StorePath, signatures: Vec<String>) {
        self.state().signatures.insert(path.clone(), signatures);
    }

    /// Realisations of `source` wait until the gate is released.
    pub fn hold(&self, source: Source) -> Gate {
        let (sender, receiver) = watch::channel(false);
        self.state().gates.insert(source, receiver);
        Gate(sender)
    }

    /// From now on `call` fails, until [`FakeNix::heal`].
    pub fn fail_call(&self, call: Call, fault: impl Fn() -> NixError + Send + Sync + 'static) {
        self.state().faults.insert(call, Arc::new(fault));
    }

    pub fn heal(&self, call: Call) {
        self.state().faults.remove(&call);
    }

    pub fn calls(&self, source: &Source) -> Calls {
        self.state().calls.get(source).copied().unwrap_or_default()
    }

    /// Whom each realisation of `source` was to ask; `None`: everybody.
    pub fn asks(&self, source: &Source) -> Vec<Option<String>> {
        self.state().asks.get(source).cloned().unwrap_or_default()
    }

    /// What a source was evaluated to.
    pub fn derivation(&self, source: &Source) -> Option<StorePath> {
        let state = self.state();
        let mut all = state.derivations.iter();
        all.find(|(_, of)| *of == source).map(|(path, _)| path.clone())
    }

    /// The path is not valid any more, as if somebody had deleted it despite its roots.
    pub fn forget(&self, path: &StorePath) {
        self.state().valid.remove(path);
    }

    /// A path without a file.
    pub fn make_valid(&self, path: &StorePath) {
        self.state().valid.insert(path.clone(), Vec::new());
    }

    pub fn is_valid(&self, path: &StorePath) -> bool {
        self.state().valid.contains_key(path)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn check(&self, call: Call) -> Result<(), NixError> {
        let mut state = self.state();
        state.collector.count(call);
        let fault = state.faults.get(&call).cloned();
        drop(state);
        fault.map_or(Ok(()), |fault| Err(fault()))
    }

    fn result(&self, source: &Source, root: &Path) -> Result<Realised, RealiseError> {
        let answer = self.state().answers.get(source).cloned();
        let realised = match (answer, source) {
            (Some(Answer::Fault(fault)), _) => return Err(fault()),
            (Some(Answer::Path(realised)), _) => realised,
            (None, Source::StorePath(path)) => {
                Realised { root: path.clone(), origin: Origin::Present, in_cache: false }
            }
            (None, _) => {
                return Err(RealiseError::Refused {
                    step: Step::Evaluate,
                    cause: "the fake knows no answer".to_owned(),
                    hint: None,
                });
            }
        };
        if self.root_if_valid(&realised.root, root)? {
            return Ok(realised);
        }
        Err(RealiseError::NotFound { path: realised.root, hint: None })
    }
}

/// A path whose hash follows from its name and its references, as in a real store.
fn path_of(name: &str, references: &[StorePath]) -> Result<StorePath, NixError> {
    const BASE32: &[u8] = b"0123456789abcdfghijklmnpqrsvwxyz";
    let mut hasher = Sha256::new();
    hasher.update(name);
    for reference in references {
        hasher.update(reference.base_name());
    }
    let digest = hasher.finalize();
    let hash: String =
        digest.iter().map(|byte| char::from(BASE32[usize::from(byte % 32)])).collect();
    StorePath::from_base_name(&format!("{hash}-{name}")).map_err(|err| NixError::Command {
        what: "naming a path of the fake".to_owned(),
        detail: err.to_string(),
    })
}

fn reach(valid: &BTreeMap<StorePath, Vec<StorePath>>, root: &StorePath) -> BTreeSet<StorePath> {
    let mut seen = HashSet::new();
    let mut todo = vec![root.clone()];
    while let Some(path) = todo.pop() {
        if seen.insert(path.clone()) {
            todo.extend(valid.get(&path).into_iter().flatten().cloned());
        }
    }
    seen.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Viewer;
    use crate::nix::ProgressSink;

    #[tokio::test]
    async fn gates_hold_and_cancellation_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let nix = FakeNix::new(dir.path()).unwrap();
        let root = nix.add_closure("app", 3).unwrap();
        let source = Source::FlakeRef("x".into());
        nix.answer(source.clone(), root.clone(), Origin::Built);
        let link = dir.path().join("r");
        let (who, sink) = (Viewer::local(), ProgressSink::default());
        let evaluated = nix.evaluate(source.clone(), who, link.clone(), sink).await.unwrap();
        let realise = || {
            nix.realise(
                (evaluated.buildable.clone(), Viewer::local()),
                link.clone(),
                ProgressSink::default(),
                Arc::new(()),
            )
        };

        let gate = nix.hold(source.clone());
        let mut held = realise();
        assert!(futures::poll!(&mut held).is_pending());
        let cancelled = realise();
        futures::pin_mut!(cancelled);
        drop(realise());
        assert_eq!(nix.calls(&source).started, 1);
        {
            let mut other = realise();
            assert!(futures::poll!(&mut other).is_pending());
        }
        gate.release();
        assert_eq!(held.await.unwrap().root, root);
        let expected =
            Calls { evaluated: 1, started: 2, finished: 1, cancelled: 1, ..Calls::default() };
        assert_eq!(nix.calls(&source), expected);

        nix.fail(source.clone(), || RealiseError::Cancelled);
        assert_eq!(realise().await.unwrap_err().kind(), "cancelled");
        nix.fail_call(Call::Closure, || NixError::Command { what: "x".into(), detail: "y".into() });
        assert!(nix.closure(&root).is_err());
        nix.heal(Call::Closure);
        assert_eq!(nix.closure(&root).unwrap().paths.len(), 3);
    }

    #[test]
    fn only_what_has_a_root_survives() {
        let dir = tempfile::tempdir().unwrap();
        let nix = FakeNix::new(dir.path()).unwrap();
        let (kept, gone) = (nix.add_closure("a", 2).unwrap(), nix.add_closure("b", 2).unwrap());
        let roots = dir.path().join("roots");
        fs::create_dir(&roots).unwrap();
        assert!(nix.root_if_valid(&kept, &roots.join("r")).unwrap());
        assert_eq!(nix.collect_garbage(&[&roots]).unwrap().len(), 2);
        assert!(nix.is_valid(&kept) && !nix.is_valid(&gone));
        assert!(!nix.store_dir().join(gone.base_name()).is_dir());
    }
}
