//! Who hears of the end of a realisation beside those who wait for it.

use actix::Addr;

use super::messages::RealiseResult;
use crate::actors::core::tell;
use crate::actors::gc::used::Used;
use crate::actors::gc::{Full, GcScheduler};
use crate::actors::uploads::{CacheUploader, Realised};
use crate::nix::RealiseError;

pub struct Listeners {
    /// If there is a cache.
    pub uploads: Option<Addr<CacheUploader>>,
    pub gc: Addr<GcScheduler>,
    pub used: Used,
}

impl Listeners {
    pub(super) fn tell(&self, result: &RealiseResult) {
        match result {
            Ok(built) => {
                self.used.note(&built.realised.root);
                if let Some((derivation, _)) = &built.derivation {
                    self.used.note(derivation);
                }
                if let Some(uploads) = &self.uploads {
                    tell(uploads, Realised(built.clone()));
                }
            }
            Err(failure) => {
                if matches!(*failure.error, RealiseError::NoSpace { .. }) {
                    tell(&self.gc, Full);
                }
            }
        }
    }
}
