//! Mutexes of state that each change leaves whole.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Also after a panic of who held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
