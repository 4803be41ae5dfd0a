//! What a collector would look at: the store's graph, and what holds its paths. Asks and reads only.

use crate::model::{StoreGraph, StorePath};

use super::command::sibling;
use super::{NixError, RealNix, process};

/// Bytes: half a million roots. What is cut off must not be taken for dead.
const MAX: usize = 64 << 20;

/// Something that holds a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// A link, a file of `/proc`, or what Nix writes in braces for what has no name.
    pub name: String,
    pub path: StorePath,
}

impl RealNix {
    /// All that holds paths at this moment: links, what processes have open, and what clients of the store
    /// have just made or asked for.
    pub async fn roots(&self) -> Result<Vec<Root>, NixError> {
        let spec =
            sibling(self.config(), "nix-store", &["--gc".as_ref(), "--print-roots".as_ref()]);
        let stdout = process::whole_output(&spec, "nix-store --gc --print-roots", MAX).await?;
        Ok(String::from_utf8_lossy(&stdout).lines().filter_map(parse).collect())
    }

    /// Blocking. All that is valid.
    pub fn graph(&self) -> Result<StoreGraph, NixError> {
        self.database().graph()
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
