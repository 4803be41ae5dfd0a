//! [`Garbage`] of an installed Nix.

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::model::{StoreGraph, StorePath};

use super::command::{guarded, sibling};
use super::{Deletion, Freed, Garbage, NixError, RealNix, Root, Sole, Space, frees, process};

/// Bytes: half a million roots. What is cut off must not be taken for dead.
const MAX: usize = 64 << 20;

impl Garbage for RealNix {
    fn roots(&self) -> BoxFuture<'static, Result<Vec<Root>, NixError>> {
        let nix = self.clone();
        async move {
            let print = ["--gc".as_ref(), "--print-roots".as_ref()];
            let spec = guarded(nix.config(), sibling(nix.config(), "nix-store", &print));
            let stdout = process::whole_output(&spec, "nix-store --gc --print-roots", MAX).await?;
            Ok(String::from_utf8_lossy(&stdout).lines().filter_map(parse).collect())
        }
        .boxed()
    }

    fn graph(&self) -> Result<StoreGraph, NixError> {
        self.database().graph()
    }

    fn delete(&self, paths: Vec<StorePath>) -> BoxFuture<'static, Result<Deletion, NixError>> {
        let nix = self.clone();
        async move {
            let mut args: Vec<_> = vec!["--delete".to_owned()];
            args.extend(paths.iter().map(ToString::to_string));
            let args: Vec<_> = args.iter().map(AsRef::as_ref).collect();
            let spec = guarded(nix.config(), sibling(nix.config(), "nix-store", &args));
            process::output(&spec, "nix-store --delete").await?;
            Ok(Deletion { deleted: paths, alive: Vec::new() })
        }
        .boxed()
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

/// `/nix/var/nix/gcroots/… -> /nix/store/…`; in 2.34 the link is in quotes.
fn parse(line: &str) -> Option<Root> {
    let (name, path) = line.trim().rsplit_once(" -> ")?;
    let path = StorePath::parse(path.trim_matches('"')).ok()?;
    Some(Root { name: name.trim_matches('"').to_owned(), path })
}
#[cfg(test)]
mod tests {
    use super::*;

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
