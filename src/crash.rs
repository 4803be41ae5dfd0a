//! Crash points for tests: a debug build can be told to kill itself, as `kill -9` would, at one
//! named point. A release build has none of it.

use std::sync::OnceLock;

static ARMED: OnceLock<String> = OnceLock::new();

/// Makes this process kill itself when it reaches the point called `name`.
pub fn arm(name: &str) {
    drop(ARMED.set(name.to_owned()));
}

/// Kills the process here if this point is armed.
#[inline]
pub fn point(name: &str) {
    if cfg!(debug_assertions) && ARMED.get().is_some_and(|armed| armed == name) {
        let me = rustix::process::getpid();
        drop(rustix::process::kill_process(me, rustix::process::Signal::KILL));
    }
}
