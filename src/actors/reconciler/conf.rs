//! The operator's nix.conf: Nix itself says whether it is good.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{place, read_file, stage};
use crate::actors::core::blocking;
use crate::nix::Nix;

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

/// What the last look found, so that Nix is not asked again.
#[derive(Clone, Default)]
pub(super) struct Judged {
    text: Option<Vec<u8>>,
    refused: Option<String>,
}

impl NixConf {
    /// The step before anything of Nix's runs. What was good last counts while the mounted one is not; an
    /// error is that there is none.
    pub async fn settle(&self) -> Result<(), String> {
        let Some(refused) = self.look(Judged::default(), true).await.0.refused else {
            return Ok(());
        };
        if !is_there(&self.target)? {
            return Err(refused);
        }
        self.check(self.target.clone()).await?;
        tracing::warn!(kind = KIND, "{refused}; what was good last stays");
        Ok(())
    }

    /// One look, and whether there is another conf now.
    pub(super) async fn sync(self, judged: Judged) -> (Judged, bool) {
        self.look(judged, false).await
    }

    async fn look(&self, judged: Judged, anew: bool) -> (Judged, bool) {
        let (source, target) = (self.source.clone(), self.target.clone());
        let read = blocking(move || read(&source, &target)).await;
        let (text, is_in_use) = match read.unwrap_or_else(|panic| Err(panic.to_string())) {
            Ok(Some(read)) => read,
            Ok(None) => return (Judged::default(), false),
            Err(why) => return (Judged { text: None, refused: Some(why) }, false),
        };
        if !anew && judged.text.as_ref() == Some(&text) {
            return (judged, false);
        }
        let done = if is_in_use && !anew { Ok(false) } else { self.adopt(&text, is_in_use).await };
        match done {
            Ok(is_new) => (Judged { text: Some(text), refused: None }, is_new),
            Err(why) => {
                let refused = Some(format!("{}: {why}", self.source.display()));
                (Judged { text: Some(text), refused }, false)
            }
        }
    }

    async fn adopt(&self, text: &[u8], is_in_use: bool) -> Result<bool, String> {
        if is_in_use {
            return self.check(self.target.clone()).await.map(|()| false);
        }
        let (text, target) = (text.to_owned(), self.target.clone());
        let staged = blocking(move || stage(&target, &text, 0o644)).await;
        let staged = staged.map_err(|panic| panic.to_string())??;
        self.check(staged.clone()).await?;
        let target = self.target.clone();
        blocking(move || place(&staged, &target)).await.map_err(|panic| panic.to_string())??;
        self.nix.conf_changed().await;
        Ok(true)
    }

    async fn check(&self, candidate: PathBuf) -> Result<(), String> {
        self.nix.check_conf(candidate).await.map_err(|error| error.to_string())
    }
}

impl Judged {
    pub(super) fn refused(&self) -> Option<&String> {
        self.refused.as_ref()
    }
}

/// The mounted one, and whether it is in use; `None`: there is none and never was.
fn read(source: &Path, target: &Path) -> Result<Option<(Vec<u8>, bool)>, String> {
    if !is_there(source)? {
        let source = source.display();
        let gone = format!("{source} is not there: an empty file takes back what it has set");
        return if is_there(target)? { Err(gone) } else { Ok(None) };
    }
    let text = read_file(source).map_err(|why| format!("{}: {why}", source.display()))?;
    let is_in_use = fs::read(target).is_ok_and(|found| found == text);
    Ok(Some((text, is_in_use)))
}

fn is_there(path: &Path) -> Result<bool, String> {
    path.try_exists().map_err(|error| format!("can't look for {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nix::fake::FakeNix;

    #[tokio::test]
    async fn a_bad_conf_is_refused_once_and_the_last_good_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let nix = FakeNix::new(dir.path()).unwrap();
        let (source, target) = (dir.path().join("mounted"), dir.path().join("state/nix.conf"));
        let conf = NixConf { source, target, nix: Arc::new(nix.clone()) };
        let in_use = || fs::read_to_string(&conf.target).unwrap();
        let sync = |judged| conf.clone().sync(judged);

        // None is none.
        conf.settle().await.unwrap();
        let (judged, is_new) = sync(Judged::default()).await;
        assert!(!is_new && judged.refused.is_none() && !is_there(&conf.target).unwrap());
        // A first one that is bad is no way to begin.
        fs::write(&conf.source, "nonsense = 1").unwrap();
        let why = conf.settle().await.unwrap_err();
        assert!(why.starts_with(&conf.source.display().to_string()) && why.contains("nonsense"));

        fs::write(&conf.source, "cores = 2").unwrap();
        let (judged, is_new) = sync(judged).await;
        assert!(is_new && judged.refused.is_none());
        assert_eq!(in_use(), "cores = 2");
        assert!(!sync(Judged::default()).await.1);
        fs::write(&conf.source, "nonsense = 2").unwrap();
        let before = nix.checked_confs().len();
        let (judged, is_new) = sync(judged).await;
        assert!(!is_new && judged.refused.as_ref().unwrap().contains("unknown setting"));
        let (judged, is_new) = sync(judged).await;
        assert!(!is_new && judged.refused.is_some());
        assert_eq!(nix.checked_confs().len(), before + 1, "asked again of what it knew");
        assert_eq!(in_use(), "cores = 2");
        // Also after a restart, and when it is no longer mounted.
        conf.settle().await.unwrap();
        fs::remove_file(&conf.source).unwrap();
        let (judged, is_new) = sync(judged).await;
        assert!(!is_new && judged.refused.unwrap().contains("is not there"));
        assert_eq!(in_use(), "cores = 2");
        // What was good may be bad to another version.
        fs::write(&conf.target, "nonsense = 0").unwrap();
        conf.settle().await.unwrap_err();
        fs::write(&conf.source, "").unwrap();
        assert!(sync(Judged::default()).await.1);
        assert_eq!(in_use(), "");
    }
}
