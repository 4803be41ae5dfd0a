//! How a realisation failed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::actors::core::ActorGone;
use crate::nix::{NixError, RealiseError};

/// Why a realisation failed and how long it took until then.
#[derive(Debug, Clone)]
pub struct Failure {
    pub error: Arc<RealiseError>,
    pub after: Duration,
    /// This is the answer to a retry that came too early; it is tried again then.
    pub again_in: Option<Duration>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error.text(Some(self.after)))?;
        match self.again_in {
            Some(wait) => {
                let seconds = wait.as_secs_f64().ceil();
                write!(
                    f,
                    "\nnot tried again for {seconds} s: `nix-csi builds retry` does it at once"
                )
            }
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

impl From<RealiseError> for Failure {
    fn from(error: RealiseError) -> Self {
        Self { error: Arc::new(error), after: Duration::ZERO, again_in: None }
    }
}

impl From<ActorGone> for Failure {
    fn from(gone: ActorGone) -> Self {
        let what = "the realisation".to_owned();
        RealiseError::from(NixError::Command { what, detail: gone.to_string() }).into()
    }
}
