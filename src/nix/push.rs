//! Uploads: closures of this store to a cache, by `nix copy` or by a program of the operator's.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::model::{StorePath, without_credentials};

use super::command::{self, CommandSpec, Config};
use super::internal_log::LogReader;
use super::push_error::{self, Doing};
use super::real::Inner;
use super::{NixError, Progress, PushError, metrics, process};

/// Paths of one command: Linux takes some two megabytes of arguments, a path has 255 bytes at most.
pub(super) const PATHS: usize = 1000;

/// Where closures go.
#[derive(Clone, PartialEq, Eq)]
pub enum PushTo {
    /// `nix copy --to`, and before it a signature on every path, if there is a key.
    Store { url: String, signing_key: Option<PathBuf> },
    /// A program that gets the paths of the whole closure on its standard input, one a line, and no
    /// arguments. Exit code 0: done; 75 (EX_TEMPFAIL): later; any other: not these closures.
    Command { program: PathBuf },
}

impl fmt::Display for PushTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { url, .. } => f.write_str(&without_credentials(url)),
            Self::Command { program } => program.display().fmt(f),
        }
    }
}

/// A URL may have a password.
impl fmt::Debug for PushTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PushTo({self})")
    }
}

pub(super) async fn push(
    nix: Arc<Inner>,
    paths: Vec<StorePath>,
    to: PushTo,
) -> Result<(), PushError> {
    still_valid(&nix, &paths).await?;
    let limit = nix.config.limits.upload;
    let work = async {
        match &to {
            PushTo::Store { url, signing_key } => {
                copy(&nix, &paths, url, signing_key.as_deref()).await
            }
            PushTo::Command { program } => hand_over(&nix, &paths, program).await,
        }
    };
    let pushed = limit.bound(work).await.unwrap_or_else(|| Err(PushError::too_slow(limit)));
    if matches!(to, PushTo::Store { .. }) {
        metrics::pushed(&pushed);
    }
    if pushed.is_err() {
        // Nix says "not valid" of our store and of the cache's in the same words.
        still_valid(&nix, &paths).await?;
    }
    pushed
}

async fn copy(
    nix: &Arc<Inner>,
    paths: &[StorePath],
    url: &str,
    signing_key: Option<&Path>,
) -> Result<(), PushError> {
    for (spec, doing) in commands(&nix.config, paths, url, signing_key) {
        run(nix, &spec.traced(), doing, ()).await?;
    }
    Ok(())
}

async fn hand_over(nix: &Arc<Inner>, paths: &[StorePath], program: &Path) -> Result<(), PushError> {
    let (theirs, roots) = (nix.clone(), paths.to_vec());
    let list =
        blocking("writing the list of paths", move || list_of(&theirs.closures(&roots)?)).await?;
    let mut spec = command::spec(&nix.config, program.to_owned(), Vec::new()).traced();
    if let Some((_, guard)) = &mut spec.guard {
        // Its own view of us: a pid is the same to both, a descriptor is not.
        let input = format!("/proc/{}/fd/{}", std::process::id(), list.as_raw_fd());
        guard.input = Some(input.into());
    }
    run(nix, &spec, Doing::Handing(program), list).await
}

/// A file without a name, so that nothing of it can stay.
fn list_of(paths: &BTreeSet<StorePath>) -> Result<File, NixError> {
    let failed = |source| NixError::Io { verb: "write", path: "the list of paths".into(), source };
    let file = memfd_create("nix-csi-upload", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = BufWriter::new(File::from(file));
    let written = paths.iter().try_for_each(|path| writeln!(file, "{path}"));
    written.map_err(failed)?;
    file.into_inner().map_err(|e| failed(e.into_error()))
}

/// Runs one command; `kept` lives as long as it does.
async fn run<K: Send + 'static>(
    nix: &Arc<Inner>,
    spec: &CommandSpec,
    doing: Doing<'_>,
    kept: K,
) -> Result<(), PushError> {
    // A file that can't be read has none to show.
    let tokens = nix.tokens().unwrap_or_default();
    let mut log = LogReader::new(nix.redactor(&tokens, None));
    let mut progress = Progress::default();
    let on_line = |line: &[u8]| log.line(line, &mut progress);
    let (ended, _kept) =
        process::run(spec, &[], on_line, kept).await.map_err(|e| PushError::before(&e))?;
    if ended.exit.is_ok() {
        if matches!(doing, Doing::Copying) {
            metrics::uploaded(nix, log.activities().copied().to_vec());
        }
        return Ok(());
    }
    Err(push_error::classify(doing, ended.exit, &log))
}

async fn still_valid(nix: &Arc<Inner>, paths: &[StorePath]) -> Result<(), PushError> {
    let (nix, paths) = (nix.clone(), paths.to_vec());
    match blocking("looking for paths", move || nix.first_invalid(&paths)).await? {
        Some(path) => Err(PushError::Gone { path }),
        None => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, NixError> + Send + 'static,
) -> Result<T, PushError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(NixError::panicked(what, &panic))).map_err(
        |error| match error {
            NixError::NotValid { path } => PushError::Gone { path },
            error => PushError::before(&error),
        },
    )
}

/// Derivations apart: they are named in another way.
fn commands(
    config: &Config,
    paths: &[StorePath],
    url: &str,
    signing_key: Option<&Path>,
) -> Vec<(CommandSpec, Doing<'static>)> {
    let (derivations, others): (Vec<_>, Vec<_>) =
        paths.iter().cloned().partition(StorePath::is_derivation);
    let each = |paths: &[StorePath]| {
        let sign = signing_key.map(|key| (sign_command(config, key, paths, true), Doing::Signing));
        sign.into_iter().chain([(copy_command(config, url, paths), Doing::Copying)])
    };
    others.chunks(PATHS).chain(derivations.chunks(PATHS)).flat_map(each).collect()
}

/// `recursive`: with what they refer to.
pub(super) fn sign_command(
    config: &Config,
    key: &Path,
    paths: &[StorePath],
    recursive: bool,
) -> CommandSpec {
    let mut args = begin(config);
    args.extend(["store", "sign"].map(OsString::from));
    args.extend(recursive.then(|| "--recursive".into()));
    args.extend(["--key-file".into(), key.into()]);
    end(config, args, paths)
}

fn copy_command(config: &Config, url: &str, paths: &[StorePath]) -> CommandSpec {
    let mut args = begin(config);
    args.extend(["copy", "--to", url].map(OsString::from));
    end(config, args, paths)
}

fn begin(config: &Config) -> Vec<OsString> {
    let mut args =
        ["--extra-experimental-features", "nix-command", "--log-format", "internal-json"]
            .map(OsString::from)
            .to_vec();
    command::push_options(&mut args, command::SETTINGS.into_iter());
    command::push_options(&mut args, command::pairs(&config.nix_options));
    // A path that is not here any more is nothing to fetch and send again.
    command::push_options(&mut args, [("substitute", "false")].into_iter());
    args
}

/// `paths` are derivations, or none of them is one: before 2.15 a derivation's path names its outputs,
/// and Nix would build them.
fn end(config: &Config, mut args: Vec<OsString>, paths: &[StorePath]) -> CommandSpec {
    if paths.iter().any(StorePath::is_derivation) {
        args.push("--derivation".into());
    }
    args.extend(paths.iter().map(|path| path.to_string().into()));
    command::spec(config, config.program.clone(), args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_key_cache_and_paths() {
        let mut config = Config::new("/home");
        config.nix_options = vec![("substitute".into(), "true".into())];
        let path = StorePath::parse("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x").unwrap();
        let words = |spec: CommandSpec| -> Vec<String> {
            spec.args.into_iter().map(|word| word.into_string().unwrap()).collect()
        };
        let sign =
            words(sign_command(&config, Path::new("/key"), std::slice::from_ref(&path), true));
        let path_text = path.to_string();
        assert_eq!(
            sign[sign.len() - 6..],
            ["store", "sign", "--recursive", "--key-file", "/key", &path_text]
        );
        let copy = words(copy_command(&config, "ssh-ng://c", std::slice::from_ref(&path)));
        assert_eq!(copy[copy.len() - 4..], ["copy", "--to", "ssh-ng://c", &path_text]);
        let last = copy.iter().rposition(|word| word == "substitute").unwrap();
        assert_eq!(copy[last + 1], "false", "a person's option does not fetch for an upload");
    }

    #[test]
    fn derivations_go_apart_and_are_named_as_such() {
        let [path, derivation] = ["x", "x.drv"].map(|name| {
            StorePath::parse(&format!("/nix/store/0123456789abcdfghijklmnpqrsvwxyz-{name}"))
                .unwrap()
        });
        let ends = |key, paths: &[StorePath]| -> Vec<String> {
            let specs = commands(&Config::new("/home"), paths, "ssh-ng://c", key);
            let words = |spec: CommandSpec| spec.args.join(" ".as_ref()).into_string().unwrap();
            let ends = specs.into_iter().map(|(spec, _)| words(spec));
            ends.map(|words| words.split_once(" substitute false ").unwrap().1.to_owned()).collect()
        };
        let both = [derivation.clone(), path.clone()];
        let sign = "store sign --recursive --key-file /key";
        let copy = "copy --to ssh-ng://c";
        assert_eq!(
            ends(Some(Path::new("/key")), &both),
            [
                format!("{sign} {path}"),
                format!("{copy} {path}"),
                format!("{sign} --derivation {derivation}"),
                format!("{copy} --derivation {derivation}"),
            ]
        );
        assert_eq!(ends(None, &both[1..]), [format!("{copy} {path}")]);
    }

    #[test]
    fn a_password_is_not_shown() {
        let to = PushTo::Store { url: "https://user:password@cache/".into(), signing_key: None };
        assert!(!format!("{to} {to:?}").contains("password"), "{to}");
    }
}
