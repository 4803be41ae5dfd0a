//! What an ssh session runs: `nix-csi relay SOCKET [DESK [AUTH]]` passes bytes between its standard input
//! and output and the daemon's socket, and knows nothing of what they say. The daemon sees the session's
//! user. AUTH is the file in which sshd says which key was let in.
//!
//! `nix-daemon --stdio` does the same in some versions of Nix. In others it takes the protocol apart and
//! stays for ever when its client goes in the middle of an upload, with the path's lock.
//!
//! - [`Desk`]: in the cache's process; how many sessions there may be, and how many may pass much at once
//! - `KeyId`, `Shares`: whose a session is, and how many each key may have
//! - `Meter`: in the session's; what passes without asking, and what waits for the desk

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

mod desk;
mod key;
mod meter;

pub use desk::{Desk, Limits, register_metrics};
use key::KeyId;
#[cfg(any(test, fuzzing))]
pub(crate) use key::fuzz as fuzz_key;
use meter::Meter;

/// The subcommand, which `--help` does not know.
pub const RELAY: &str = "relay";
/// sysexits.h, EX_USAGE.
const USAGE: u8 = 64;
/// The same, EX_TEMPFAIL.
const TRY_AGAIN: u8 = 75;
/// Bytes; what a pipe holds.
const BUFFER: usize = 64 << 10;

/// Relays if the arguments ask for it; `None`: they don't.
pub fn run_if_asked(args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let mut args = args.skip(1);
    if args.next()? != RELAY {
        return None;
    }
    let (Some(socket), desk, auth, None) = (args.next(), args.next(), args.next(), args.next())
    else {
        eprintln!("nix-csi {RELAY}: give it the daemon's socket");
        return Some(ExitCode::from(USAGE));
    };
    let key = KeyId::taken_from(&auth.unwrap_or_default());
    let meter = match desk.map(|desk| Meter::admitted(&desk, key)).transpose() {
        Ok(meter) => meter.map(Arc::new),
        Err(error) => {
            eprintln!("nix-csi {RELAY}: {error}");
            return Some(ExitCode::from(TRY_AGAIN));
        }
    };
    Some(match relay(&socket, meter.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nix-csi {RELAY}: {}: {error}", socket.display());
            ExitCode::FAILURE
        }
    })
}

/// Ends when the daemon hangs up, as it does when the client does.
fn relay(socket: &OsStr, meter: Option<&Arc<Meter>>) -> io::Result<()> {
    // Files: the standard library's own streams wait for whole lines.
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut from = UnixStream::connect(socket)?;
    let mut to = from.try_clone()?;
    if let Some(meter) = meter.cloned() {
        thread::spawn(move || meter.keep());
    }
    let inputs = meter.cloned();
    thread::spawn(move || {
        // However it ends, this client has gone: none closes one half alone. And a daemon that is busy with
        // a build that says nothing sees only that nobody is there at all.
        drop(pass(&mut input, &mut to, inputs.as_deref()));
        drop(to.shutdown(Shutdown::Both));
    });
    pass(&mut from, &mut output, meter.map(Arc::as_ref))
}

/// Each piece at once. `io::copy` would let the kernel splice, and that waits for more.
fn pass(from: &mut impl Read, to: &mut impl Write, meter: Option<&Meter>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                if let Some(meter) = meter {
                    meter.take(length);
                }
                to.write_all(&buffer[..length])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_name_is_taken() {
        let args = |words: &[&str]| words.iter().map(Into::into).collect::<Vec<OsString>>();
        assert!(run_if_asked(args(&["nix-csi", "node"]).into_iter()).is_none());
        assert!(run_if_asked(args(&["nix-csi"]).into_iter()).is_none());
        let usage = Some(ExitCode::from(USAGE));
        assert_eq!(
            format!("{:?}", run_if_asked(args(&["n", RELAY]).into_iter())),
            format!("{usage:?}")
        );
    }

    #[test]
    fn a_few_bytes_are_passed_at_once() {
        let (mut near, mut from) = UnixStream::pair().unwrap();
        let (mut far, mut to) = UnixStream::pair().unwrap();
        let passing = thread::spawn(move || pass(&mut from, &mut to, None));
        let mut heard = [0; 2];
        for word in [b"ab", b"cd"] {
            near.write_all(word).unwrap();
            far.read_exact(&mut heard).unwrap();
            assert_eq!(&heard, word);
        }
        drop(near);
        passing.join().unwrap().unwrap();
        assert_eq!(far.read(&mut heard).unwrap(), 0);
    }
}
