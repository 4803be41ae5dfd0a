//! Hands paths to `nix-store --import`, in its format (nix, `exportPath`).

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::pipe::{PipeFlags, pipe_with};

use super::closure::Source;
use super::error::BootstrapError as Error;
use super::place::Place;
use super::temp_roots;
use crate::crash::crash_point;
use crate::jail::capabilities;
use crate::model::{StorePath, Vouched};
use crate::nix::NixError;
use crate::nix::command::{CommandSpec, Config, push_options, sibling};
use crate::nix::db::escaped;
use crate::nix::error::io_error;
use crate::nix::{Space, nar, process};

/// nix, `exportMagic`.
const MAGIC: u64 = 0x4558_494e;
/// What ENOSPC and EDQUOT are called, also by SQLite.
const FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "is full"];

/// Blocking in parts. `missing`: of the source's closure, in its order.
pub(super) async fn import(
    config: &Config,
    source: Source,
    missing: &[StorePath],
    place: &Place,
) -> Result<(), Error> {
    let wanted: HashSet<_> = missing.iter().cloned().collect();
    let bytes = source.closure.iter().filter(|one| wanted.contains(&one.path));
    let bytes: u64 = bytes.map(|one| one.nar_size).sum();
    let piped = |err: rustix::io::Errno| io_error("make", Path::new("a pipe"), err.into());
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(piped)?;
    let mut spec = command(config, place, "--import");
    if let Some((_, guard)) = &mut spec.guard {
        let input = format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd());
        guard.input = Some(input.into());
    }
    temp_roots::pass(&place.state_dir);
    let sending = tokio::task::spawn_blocking(move || send(&source, &wanted, writer.into()));
    let ended = process::output(&spec, "nix-store --import").await;
    // Who writes to it and has no reader any more ends.
    drop(reader);
    match sending.await.map_err(|panic| NixError::panicked("reading the closure", &panic))? {
        Ok(()) | Err(Stop::NoReader) => {}
        Err(Stop::Failed(error)) => return Err(error),
    }
    ended.map(drop).map_err(|error| told(error, bytes, place))
}

/// `bytes`: of what was to be copied.
fn told(error: NixError, bytes: u64, place: &Place) -> Error {
    match &error {
        NixError::Command { detail, .. } if FULL.iter().any(|word| detail.contains(word)) => {
            let (to, free) = (place.dir.clone(), Space::of(&place.dir).unwrap_or_default());
            let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
            let (needed, free) = (megabytes(bytes), megabytes(free.free_bytes));
            Error::NoSpace { to, needed, free }
        }
        _ => error.into(),
    }
}

/// Has Nix make the store, or bring its database into order after a writer that was killed.
pub(super) async fn init(config: &Config, source: &Source, place: &Place) -> Result<(), Error> {
    temp_roots::pass(&place.state_dir);
    let made = process::output(&command(config, place, "--init"), "nix-store --init").await;
    let bytes = source.closure.iter().map(|one| one.nar_size).sum();
    made.map(drop).map_err(|error| told(error, bytes, place))
}

fn command(config: &Config, place: &Place, what: &str) -> CommandSpec {
    // The directory is not where the store will be, and its paths have the names that they will have.
    let [store, state, log] =
        ["store", "var/nix", "var/log/nix"].map(|part| escaped(&place.dir.join(part)));
    let mut args = vec![
        OsString::from("--store"),
        format!("local?real={store}&state={state}&log={log}").into(),
    ];
    // A collection of its own would wait for us.
    push_options(&mut args, [("min-free", "0")].into_iter());
    args.push(what.into());
    let args: Vec<_> = args.iter().map(OsString::as_os_str).collect();
    let mut spec = sibling(config, "nix-store", &args);
    if let Some((_, guard)) = &mut spec.guard {
        guard.keeps = config.keeps(capabilities::IMPORT);
    }
    spec
}

enum Stop {
    /// Nix has ended, and says why.
    NoReader,
    Failed(Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe => Self::NoReader,
            _ => Self::Failed(io_error("read", Path::new("the closure"), error).into()),
        }
    }
}

/// Blocking. What ends before its end is refused by Nix, all but what came before.
fn send(source: &Source, wanted: &HashSet<StorePath>, pipe: File) -> Result<(), Stop> {
    let mut out = BufWriter::new(pipe);
    for one in source.closure.iter().filter(|one| wanted.contains(&one.path)) {
        number(&mut out, 1)?;
        let file = Path::new("store").join(one.path.base_name());
        let hash = nar::dump(&source.tree, &file, one.nar_size, &mut out)?;
        if hash != Some(one.sha256) {
            // What is still to be written would be.
            drop(out.into_parts());
            let (path, from) = (one.path.clone(), source.from.clone());
            return Err(Stop::Failed(Error::Incomplete { path, from }));
        }
        about(&mut out, one)?;
        out.flush()?;
        crash_point("bootstrap-importing");
    }
    number(&mut out, 0)?;
    out.flush()?;
    crash_point("bootstrap-sent");
    Ok(())
}

/// What comes after a NAR: name, references, no deriver, no signature.
fn about(out: &mut impl Write, one: &Vouched) -> io::Result<()> {
    number(out, MAGIC)?;
    text(out, &one.path.to_string())?;
    number(out, one.references.len() as u64)?;
    for path in &one.references {
        text(out, &path.to_string())?;
    }
    text(out, "")?;
    number(out, 0)
}

fn number(out: &mut impl Write, number: u64) -> io::Result<()> {
    out.write_all(&number.to_le_bytes())
}

fn text(out: &mut impl Write, text: &str) -> io::Result<()> {
    number(out, text.len() as u64)?;
    out.write_all(text.as_bytes())?;
    out.write_all(&[0; 8][..text.len().wrapping_neg() % 8])
}
