//! `nix-csi debug bundle`: one archive for a bug report.

mod archive;
mod file;
mod parts;

use std::io::{IsTerminal, Write};

use self::file::Target;
use super::Failure;
use crate::bundle::Part;
use crate::config::{BundleArgs, DebugCommand};

/// The names of the archive's directory, and of a file that nobody has named.
const NAME: &str = "nix-csi-bundle";

pub async fn debug(command: DebugCommand) -> Result<(), Failure> {
    let DebugCommand::Bundle(args) = command;
    bundle(&args).await
}

async fn bundle(args: &BundleArgs) -> Result<(), Failure> {
    let now = jiff::Timestamp::now();
    let named = || format!("{NAME}-{}.tar.gz", now.strftime("%Y%m%dT%H%M%SZ")).into();
    let path = args.output.clone().unwrap_or_else(named);
    let is_stdout = path.as_os_str() == "-";
    if is_stdout && std::io::stdout().is_terminal() {
        return Err("an archive is nothing for a terminal: redirect it, or name a file".into());
    }
    // Before the work: who may not write it hears so at once.
    let target = if is_stdout { None } else { Some(Target::create(&path, args.force)?) };
    let (parts, said) = parts::all(args).await;
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let archive = archive::archive(&parts, &archive::manifest(&parts, &said, now), seconds)?;
    let lacking: Vec<_> = parts.iter().filter(|part| !part.lacks.is_empty()).collect();
    let told = told(parts.len(), &lacking);
    if let Some(target) = target {
        target.write(&archive)?;
        println!("{}: {told}", path.display());
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(&archive)?;
        out.flush()?;
        eprintln!("{told}");
    }
    Ok(())
}

fn told(all: usize, lacking: &[&Part]) -> String {
    match lacking.len() {
        0 => format!("{all} files"),
        n => format!("{all} files, {n} of them missing or not whole: its MANIFEST says why"),
    }
}
