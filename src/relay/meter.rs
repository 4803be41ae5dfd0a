//! The session's half: a little passes at once, always; who has more to say asks the desk, and is slow
//! until it is his turn. Never silent: a node leaves out a cache from which nothing comes.
//!
//! A turn is only kept by who uses it. So nobody has one who waits for somebody else, as a session does in
//! which a build runs, and those whose turn it is never wait for those whose turn it is not.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, socket};
use tokio::time::Instant;

use super::desk::{ADMITTED, DONE, KEY_REFUSED, REFUSED, TURN, WANTED};
use super::key::KeyId;

use crate::lock::lock;

#[derive(Clone, Copy)]
struct Pace {
    /// Bytes: questions and their answers, logs of builds, small closures.
    free: usize,
    /// Bytes a second, of who waits too.
    trickle: usize,
    /// How often it is seen whether a turn is used.
    look: Duration,
    /// The longest turn: one with a slow line must not keep others from theirs.
    longest: Duration,
}

const PACE: Pace = Pace {
    free: 1 << 20,
    trickle: 32 << 10,
    look: Duration::from_secs(2),
    longest: Duration::from_secs(60),
};
/// For the desk to answer.
const PATIENCE: Duration = Duration::from_secs(10);

const FULL: &str = "the cache has as many sessions as it may (--max-sessions): try again later";
const KEY_FULL: &str = "this key has as many sessions at the cache as one key may \
    (--max-sessions-per-key): end some, or try again later";

/// A desk whose queue is full would hold the plain call for ever.
fn connect(desk: &OsStr) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(desk)?)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(socket.into())
}

/// A time limit of a socket shows as what else is a lack of processes.
fn told(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return io::Error::other(format!("the cache did not answer within {PATIENCE:?}"));
    }
    error
}

pub(super) struct Meter {
    pace: Pace,
    state: Mutex<State>,
    changed: Condvar,
    desk: UnixStream,
}

struct State {
    turn: Turn,
    /// What may pass without one, as of `since`.
    free: usize,
    since: Instant,
    /// In this turn, since the last look.
    passed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    No,
    Waiting,
    Yes,
}

impl Meter {
    /// An error says why this session may not be, for now.
    pub(super) fn admitted(desk: &OsStr, key: KeyId) -> io::Result<Self> {
        let mut desk = connect(desk).map_err(told)?;
        desk.write_all(&key.0)?;
        desk.set_read_timeout(Some(PATIENCE))?;
        let mut answer = [0];
        match (desk.read(&mut answer).map_err(told)?, answer) {
            (1, [ADMITTED]) => {}
            (1, [REFUSED]) => return Err(io::Error::other(FULL)),
            (1, [KEY_REFUSED]) => return Err(io::Error::other(KEY_FULL)),
            _ => {
                return Err(io::Error::other(
                    "the cache ends, or takes no sessions of this account",
                ));
            }
        }
        desk.set_read_timeout(None)?;
        Ok(Self::new(desk, PACE))
    }

    fn new(desk: UnixStream, pace: Pace) -> Self {
        let state = State { turn: Turn::No, free: pace.free, since: Instant::now(), passed: 0 };
        Self { pace, state: Mutex::new(state), changed: Condvar::new(), desk }
    }

    /// Returns when so many bytes may pass.
    pub(super) fn take(&self, length: usize) {
        let mut state = self.lock();
        loop {
            if state.turn == Turn::Yes {
                state.passed += length;
                return;
            }
            state.refill(self.pace);
            if state.free >= length {
                state.free -= length;
                return;
            }
            if state.turn == Turn::No {
                state.turn = Turn::Waiting;
                // Without a desk it trickles: the cache ends, and all sessions with it.
                drop((&self.desk).write_all(&[WANTED]));
            }
            let until = self.pace.time_for(length - state.free);
            let waited = self.changed.wait_timeout(state, until);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes turns as they come, and gives them back. Ends with the desk.
    pub(super) fn keep(&self) {
        let mut turn = [0];
        while (&self.desk).read_exact(&mut turn).is_ok() && turn[0] == TURN {
            {
                let mut state = self.lock();
                state.turn = Turn::Yes;
                state.passed = 0;
            }
            self.changed.notify_all();
            let began = Instant::now();
            // Who got by with the trickle meanwhile does not hold up the next one.
            if self.is_wanted() {
                while !self.is_over(began) {}
            }
        }
    }

    /// Whether anything passes soon; else the turn is over.
    fn is_wanted(&self) -> bool {
        thread::sleep(self.pace.look / 10);
        let mut state = self.lock();
        if state.passed > 0 {
            return true;
        }
        self.give_back(&mut state);
        false
    }

    /// Waits for the next look.
    fn is_over(&self, began: Instant) -> bool {
        thread::sleep(self.pace.look);
        let mut state = self.lock();
        let passed = std::mem::take(&mut state.passed);
        if self.pace.time_for(passed) > self.pace.look && began.elapsed() < self.pace.longest {
            return false;
        }
        (state.free, state.since) = (0, Instant::now());
        self.give_back(&mut state);
        true
    }

    fn give_back(&self, state: &mut State) {
        state.turn = Turn::No;
        drop((&self.desk).write_all(&[DONE]));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    fn refill(&mut self, pace: Pace) {
        let trickled = self.since.elapsed().as_millis() * pace.trickle as u128 / 1000;
        if trickled > 0 {
            let trickled = usize::try_from(trickled).unwrap_or(pace.free);
            (self.free, self.since) = ((self.free + trickled).min(pace.free), Instant::now());
        }
    }
}

impl Pace {
    /// How long so much takes to trickle.
    fn time_for(self, bytes: usize) -> Duration {
        let micros = bytes as u64 * 1_000_000 / self.trickle as u64;
        Duration::from_micros(micros).max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const PACE: Pace = Pace {
        free: 10_000,
        trickle: 1_000,
        look: Duration::from_millis(200),
        longest: Duration::from_millis(500),
    };

    /// A session's meter, and the desk's end.
    fn meter(pace: Pace) -> (Arc<Meter>, UnixStream) {
        let (near, desk) = UnixStream::pair().unwrap();
        desk.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let meter = Arc::new(Meter::new(near, pace));
        let keeper = meter.clone();
        thread::spawn(move || keeper.keep());
        (meter, desk)
    }

    fn said(mut desk: &UnixStream) -> u8 {
        let mut word = [0];
        desk.read_exact(&mut word).unwrap();
        word[0]
    }

    #[test]
    fn little_passes_unasked_and_what_waits_trickles() {
        let (meter, desk) = meter(PACE);
        meter.take(PACE.free);
        desk.set_nonblocking(true).unwrap();
        (&desk).read_exact(&mut [0]).unwrap_err();
        desk.set_nonblocking(false).unwrap();
        let began = Instant::now();
        meter.take(200);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(150), "{took:?}");
        assert_eq!(said(&desk), WANTED);
    }

    #[test]
    fn a_turn_ends_when_it_is_not_used_and_when_it_was_long_enough() {
        let (meter, desk) = meter(PACE);
        let user = meter.clone();
        let uses = thread::spawn(move || {
            let began = Instant::now();
            while began.elapsed() < 4 * PACE.longest {
                user.take(20_000); // far more than trickles
                thread::yield_now();
            }
        });
        // In use for all that time, and asked for anew.
        for _ in 0..2 {
            assert_eq!(said(&desk), WANTED);
            let began = Instant::now();
            (&desk).write_all(&[TURN]).unwrap();
            assert_eq!(said(&desk), DONE);
            assert!(began.elapsed() >= PACE.longest, "{:?}", began.elapsed());
        }
        drop(desk); // who waits now trickles: 20,000 bytes take 20 s
        drop(uses);

        let (meter, desk) = self::meter(Pace { longest: Duration::MAX, ..PACE });
        let user = meter.clone();
        let once = thread::spawn(move || user.take(2 * PACE.free));
        assert_eq!(said(&desk), WANTED);
        (&desk).write_all(&[TURN]).unwrap();
        once.join().unwrap();
        assert_eq!(said(&desk), DONE);
    }
}
