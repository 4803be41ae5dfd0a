//! Named points at which a debug build can be told to die, so that tests can show that a
//! `kill -9` anywhere is repaired. A release build has no such points.

#[cfg(debug_assertions)]
static ARMED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// From now on the process kills itself with SIGKILL when it reaches the point `name`. The first
/// call wins. An error in a release build.
#[cfg(debug_assertions)]
pub fn arm(name: &str) -> Result<(), String> {
    let _ = ARMED.set(name.to_owned());
    Ok(())
}

#[cfg(not(debug_assertions))]
pub fn arm(_: &str) -> Result<(), String> {
    Err("--crash-at is for debug builds".to_owned())
}

/// Dies here if armed with `name`.
#[cfg(debug_assertions)]
pub(crate) fn crash_point(name: &str) {
    if ARMED.get().is_some_and(|armed| armed == name) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

#[cfg(not(debug_assertions))]
#[inline]
pub(crate) fn crash_point(_name: &str) {}
