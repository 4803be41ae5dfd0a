//! The operator's nix.conf: Nix itself says whether it is good.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::files::{place, read_file, stage};
use super::keys::MAX_FILE;
use crate::actors::core::blocking;
use crate::nix::{ConfError, Nix};
use crate::read::{at_most, text_at_most};

/// Its name in logs and metrics.
pub(super) const KIND: &str = "nix-conf";

#[derive(Clone)]
pub struct NixConf {
    /// What the operator mounts.
    pub source: PathBuf,
    /// What Nix reads. It survives a restart, since it is what was good last.
    pub target: PathBuf,
    pub nix: Arc<dyn Nix>,
}

/// What the last look found.
#[derive(Clone, Default)]
pub(super) struct Judged {
    text: Option<Vec<u8>>,
    refused: Option<String>,
    /// `None`: Nix has judged it, and is not asked again. What only failed is tried again, at longer and
    /// longer intervals.
    again: Option<Again>,
}

#[derive(Clone, Copy)]
struct Again {
    at: Instant,
    wait: Duration,
}

impl Again {
    const FIRST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(600);

    fn after(before: Option<Self>) -> Self {
        let wait = before.map_or(Self::FIRST, |before| (2 * before.wait).min(Self::LONGEST));
        Self { at: Instant::now() + wait, wait }
    }
}

/// What is mounted.
struct Mounted {
    text: Vec<u8>,
    is_in_use: bool,
}

impl NixConf {
    /// The step before anything of Nix's runs. What was good last counts while the mounted one is not; an
    /// error is that there is none.
    pub async fn settle(&self) -> Result<(), String> {
        let Some(refused) = self.look(Judged::default(), true).await.0.refused else {
            return Ok(());
        };
        let target = self.target.clone();
        let last = blocking(move || is_there(&target)?.then(|| utf8(&target)).transpose()).await;
        let Some(text) = last.map_err(|panic| panic.to_string())?? else {
            return Err(refused);
        };
        if let Err(error) = self.nix.check_conf(self.target.clone(), text).await {
            let last = self.target.display();
            return Err(format!("{refused}; and what was good last, {last}: {error}"));
        }
        tracing::warn!(kind = KIND, "{refused}; what was good last stays");
        Ok(())
    }

    /// One look, and whether there is another conf now.
    pub(super) async fn sync(self, judged: Judged) -> (Judged, bool) {
        self.look(judged, false).await
    }

    /// `anew`: Nix may be another version than the one that took what is in use.
    async fn look(&self, judged: Judged, anew: bool) -> (Judged, bool) {
        let (source, target) = (self.source.clone(), self.target.clone());
        let read = blocking(move || read(&source, &target)).await;
        let mounted = match read.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(Some(mounted)) => mounted,
            Ok(None) => return (Judged::default(), false),
            Err(why) => return (Judged { refused: Some(why), ..Judged::default() }, false),
        };
        let is_known = judged.text.as_ref() == Some(&mounted.text);
        let is_due = judged.again.is_some_and(|again| Instant::now() >= again.at);
        if is_known && !is_due && !anew {
            return (judged, false);
        }
        let is_done = mounted.is_in_use && !anew;
        let done = if is_done { Ok(false) } else { self.adopt(&mounted).await };
        let refused = |why| Some(format!("{}: {why}", self.source.display()));
        match done {
            Ok(is_new) => (Judged { text: Some(mounted.text), ..Judged::default() }, is_new),
            Err(ConfError::Refused(why)) => {
                let text = Some(mounted.text);
                (Judged { text, refused: refused(why), again: None }, false)
            }
            Err(error @ ConfError::Unknown(_)) => {
                let again = Again::after(judged.again.filter(|_| is_known));
                let text = Some(mounted.text);
                (Judged { text, refused: refused(error.to_string()), again: Some(again) }, false)
            }
        }
    }

    async fn adopt(&self, mounted: &Mounted) -> Result<bool, ConfError> {
        let utf8 = std::str::from_utf8(&mounted.text).map(str::to_owned);
        let text = utf8.map_err(|_| ConfError::Refused("it is not UTF-8".to_owned()))?;
        if mounted.is_in_use {
            return self.nix.check_conf(self.target.clone(), text).await.map(|()| false);
        }
        let (bytes, target) = (mounted.text.clone(), self.target.clone());
        let staged = on_disk(move || stage(&target, &bytes, 0o644)).await?;
        self.nix.check_conf(staged.clone(), text).await?;
        let target = self.target.clone();
        on_disk(move || place(&staged, &target)).await?;
        self.nix.conf_changed().await;
        Ok(true)
    }
}

impl Judged {
    pub(super) fn refused(&self) -> Option<&String> {
        self.refused.as_ref()
    }
}

async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, ConfError> {
    let done = blocking(work).await.unwrap_or_else(|panic| Err(panic.to_string()));
    done.map_err(ConfError::Unknown)
}

/// `None`: there is none and never was.
fn read(source: &Path, target: &Path) -> Result<Option<Mounted>, String> {
    if !is_there(source)? {
        let source = source.display();
        let gone = format!("{source} is not there: an empty file takes back what it has set");
        return if is_there(target)? { Err(gone) } else { Ok(None) };
    }
    let text = read_file(source).map_err(|why| format!("{}: {why}", source.display()))?;
    let is_in_use = at_most(target, text.len()).is_ok_and(|found| found == text);
    Ok(Some(Mounted { text, is_in_use }))
}

fn utf8(path: &Path) -> Result<String, String> {
    text_at_most(path, MAX_FILE).map_err(|error| format!("can't read {}: {error}", path.display()))
}

fn is_there(path: &Path) -> Result<bool, String> {
    path.try_exists().map_err(|error| format!("can't look for {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::nix::fake::FakeNix;

    struct Scene {
        _dir: tempfile::TempDir,
        nix: FakeNix,
        conf: NixConf,
        judged: Judged,
    }

    impl Scene {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let nix = FakeNix::new(dir.path()).unwrap();
            let (source, target) = (dir.path().join("mounted"), dir.path().join("state/nix.conf"));
            let conf = NixConf { source, target, nix: Arc::new(nix.clone()) };
            Self { _dir: dir, nix, conf, judged: Judged::default() }
        }

        fn mount(&self, text: impl AsRef<[u8]>) {
            fs::write(&self.conf.source, text).unwrap();
        }

        fn in_use(&self) -> String {
            fs::read_to_string(&self.conf.target).unwrap()
        }

        /// Whether there is another conf now, and what was refused.
        async fn look(&mut self) -> (bool, Option<String>) {
            let (judged, is_new) = self.conf.clone().sync(self.judged.clone()).await;
            self.judged = judged;
            (is_new, self.judged.refused.clone())
        }
    }

    #[tokio::test]
    async fn a_bad_conf_is_refused_once_and_the_last_good_one_stays() {
        let mut scene = Scene::new();
        // None is none.
        scene.conf.settle().await.unwrap();
        assert_eq!(scene.look().await, (false, None));
        assert!(!is_there(&scene.conf.target).unwrap());
        // A first one that is bad is no way to begin.
        scene.mount("nonsense = 1");
        let why = scene.conf.settle().await.unwrap_err();
        assert!(why.starts_with(&scene.conf.source.display().to_string()), "{why}");

        scene.mount("cores = 2");
        assert_eq!(scene.look().await, (true, None));
        assert_eq!(scene.in_use(), "cores = 2");
        assert_eq!(scene.look().await, (false, None));
        scene.mount("nonsense = 2");
        let before = scene.nix.checked_confs().len();
        for _ in 0..3 {
            let (is_new, refused) = scene.look().await;
            assert!(!is_new && refused.unwrap().contains("unknown setting"));
        }
        assert_eq!(scene.nix.checked_confs().len(), before + 1, "asked again of what it knew");
        scene.mount(b"cores = \xff");
        assert!(scene.look().await.1.unwrap().contains("it is not UTF-8"));
        assert_eq!(scene.in_use(), "cores = 2");
        // Also after a restart, and when it is no longer mounted.
        scene.conf.settle().await.unwrap();
        fs::remove_file(&scene.conf.source).unwrap();
        assert!(scene.look().await.1.unwrap().contains("is not there"));
        assert_eq!(scene.in_use(), "cores = 2");
        // What was good may be bad to another version.
        fs::write(&scene.conf.target, "nonsense = 0").unwrap();
        scene.conf.settle().await.unwrap_err();
        scene.mount("");
        assert_eq!(scene.look().await, (true, None));
        assert_eq!(scene.in_use(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_tried_now_is_tried_again_and_less_and_less() {
        let mut scene = Scene::new();
        scene.mount("later = 1");
        for (seconds, tries) in [(0, 1), (1, 1), (9, 2), (10, 2), (10, 3), (39, 3), (2, 4)] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            let (is_new, refused) = scene.look().await;
            assert!(!is_new && refused.unwrap().contains("can't be tried now: no processes"));
            assert_eq!(scene.nix.checked_confs().len(), tries, "{seconds}");
        }
        scene.mount("cores = 2");
        // What was to be tried is in the way of the next one.
        let staged = scene.conf.target.with_extension("new");
        fs::remove_file(&staged).unwrap();
        fs::create_dir_all(staged.join("x")).unwrap();
        assert!(scene.look().await.1.unwrap().contains("can't write"));
        fs::remove_dir_all(staged).unwrap();
        tokio::time::advance(Again::FIRST).await;
        assert_eq!(scene.look().await, (true, None));
    }
}
