//! `nix-csi canary`: what the pods of `nix-csi check` run.

use std::fs;
use std::io;
use std::path::Path;

use super::Failure;
use crate::config::CanaryArgs;
use crate::read::{SMALL, text_at_most};

/// End of the name of the file that the check has put there.
const FILE: &str = "-nix-csi-check.txt";

/// Lists the store of a volume, and reads one file of it.
pub fn canary(args: &CanaryArgs) -> Result<(), Failure> {
    let store = args.directory.join("store");
    let names = names(&store).map_err(|e| format!("can't list {}: {e}", store.display()))?;
    let name = names.iter().find(|name| name.ends_with(FILE));
    let name = name.ok_or_else(|| {
        format!("{} has no *{FILE} among its {} paths", store.display(), names.len())
    })?;
    let file = store.join(name);
    let text =
        text_at_most(&file, SMALL).map_err(|e| format!("can't read {}: {e}", file.display()))?;
    if text != args.text {
        return Err(format!("{} has another text than the check's", file.display()).into());
    }
    println!("{} paths", names.len());
    Ok(())
}

fn names(store: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(store)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_without_the_checks_file_is_told_from_one_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = |text: &str| {
            let args = CanaryArgs { directory: dir.path().to_owned(), text: text.to_owned() };
            canary(&args).map_err(|Failure(why)| why)
        };
        assert!(run("x").unwrap_err().starts_with("can't list "));
        fs::create_dir(dir.path().join("store")).unwrap();
        fs::write(dir.path().join("store/other"), "x").unwrap();
        assert!(run("x").unwrap_err().contains("among its 1 paths"));
        fs::write(dir.path().join("store/abc-nix-csi-check.txt"), "x").unwrap();
        run("x").unwrap();
        assert!(run("y").unwrap_err().contains("another text"));
    }
}
