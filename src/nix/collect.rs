//! [`Garbage`] of an installed Nix.

use std::ffi::OsString;

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::model::{StoreGraph, StorePath};

use super::command::{CommandSpec, client, guarded, pairs, push_options};
use super::{
    Config, Deletion, Freed, Garbage, NixError, RealNix, Root, Sole, Space, Stock, delete, frees,
    process, remains,
};

/// Bytes: half a million roots. What is cut off must not be taken for dead.
const MAX: usize = 64 << 20;

const KEEP: [(&str, &str); 2] = [("keep-derivations", "false"), ("keep-outputs", "false")];

impl Garbage for RealNix {
    fn roots(&self) -> BoxFuture<'static, Result<Vec<Root>, NixError>> {
        let nix = self.clone();
        async move {
            let spec = command(nix.config(), ["--gc", "--print-roots"].map(OsString::from));
            let stdout = process::whole_output(&spec, "nix-store --gc --print-roots", MAX).await?;
            Ok(String::from_utf8_lossy(&stdout).lines().filter_map(parse).collect())
        }
        .boxed()
    }

    fn graph(&self) -> Result<StoreGraph, NixError> {
        self.database().graph()
    }

    fn delete(&self, paths: Vec<StorePath>) -> BoxFuture<'static, Result<Deletion, NixError>> {
        delete::delete(self.clone(), paths).boxed()
    }

    fn remains(&self, paths: &[StorePath]) -> Result<Vec<StorePath>, NixError> {
        remains::remains(&self.config().store_dir, paths, |path| self.database().is_valid(path))
    }

    fn delete_remains(&self, path: StorePath) -> BoxFuture<'static, Result<bool, NixError>> {
        let nix = self.clone();
        async move { Ok(delete::run(&nix, &[path]).await?.is_none()) }.boxed()
    }

    fn stock(&self) -> Result<Stock, NixError> {
        self.database().aside().stock()
    }

    fn space(&self) -> Result<Space, NixError> {
        Space::of(&self.config().store_dir)
    }

    fn frees(&self, paths: &[StorePath]) -> Result<Vec<Freed>, NixError> {
        frees::frees(&self.config().store_dir, paths)
    }

    fn last_read(&self, paths: &[StorePath]) -> Vec<Option<u64>> {
        frees::last_read(&self.config().store_dir, paths)
    }

    fn sole(&self) -> Result<Option<Sole>, NixError> {
        Sole::take(&self.config().state_dir)
    }
}

/// `nix-store`, as a collector: nothing but the references of a path holds others. Where a setting of Nix's
/// own would keep what built a path, it would call alive what [`Garbage::graph`] has as dead. It works on a
/// store of ours itself: so its guard ends what hangs, which a daemon's worker would go on with, and with it
/// Nix's lock.
pub(super) fn command(config: &Config, rest: impl IntoIterator<Item = OsString>) -> CommandSpec {
    let mut args = Vec::new();
    push_options(&mut args, KEEP.into_iter().chain(pairs(&config.nix_options)));
    args.extend(rest);
    let program = config.program.with_file_name("nix-store");
    let daemon = config.daemon_socket.as_deref().filter(|_| config.daemon_lent);
    guarded(config, client(config, (&config.home, daemon), program, args))
}

/// `/nix/var/nix/gcroots/… -> /nix/store/…`; in 2.34 the link is in quotes.
pub(super) fn parse(line: &str) -> Option<Root> {
    let (name, path) = line.trim().rsplit_once(" -> ")?;
    let path = StorePath::parse(path.trim_matches('"')).ok()?;
    Some(Root { name: name.trim_matches('"').to_owned(), path })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hangs has to end with its command, and a daemon's worker does not.
    #[test]
    fn a_store_of_ours_is_worked_on_without_the_daemon() {
        let mut config = Config::new("/home");
        config.daemon_socket = Some("/run/s".into());
        let remote = |config: &Config| {
            let env = command(config, []).env;
            env.into_iter().find(|(name, _)| name == "NIX_REMOTE").unwrap().1
        };
        assert_eq!(remote(&config), "local");
        config.daemon_lent = true;
        assert_eq!(remote(&config), "unix:///run/s");
    }

    #[test]
    fn roots_of_all_versions_are_read() {
        let path = "/nix/store/0123456789abcdfghijklmnpqrsvwxyz-x";
        for (line, name) in [
            (format!("/nix/var/nix/gcroots/r -> {path}"), "/nix/var/nix/gcroots/r"),
            (format!("\"/nix/var/nix/gcroots/a -> b\" -> {path}"), "/nix/var/nix/gcroots/a -> b"),
            (format!("{{temp:12}} -> {path}"), "{temp:12}"),
            (format!("/proc/7/exe -> {path}"), "/proc/7/exe"),
        ] {
            let root = parse(&line).unwrap();
            assert_eq!((&*root.name, root.path.to_string()), (name, path.to_owned()), "{line}");
        }
        for line in ["", "finding roots...", "/a -> /b"] {
            assert_eq!(parse(line), None);
        }
    }
}
