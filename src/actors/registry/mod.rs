//! Which builders there are: Nix's machines file, kept like the cluster.
//!
//! - [`BuilderRegistry`]
//!   - owns: the builders it knows, who of them is on the bench, and the machines file;
//!   - hears: the watch of the builders' pods; [`BuildersAsked`] from the probe; [`ListBuilders`]; its own
//!     tick;
//!   - tells: nobody; Nix reads the file at each build;
//!   - on restart: reads the file and watches anew; the bench is forgotten.
//! - [`BuilderProbe`]: tells the registry which builders answer, and what they say.
//! - [`Offer`]: what a builder can do: by its pod's annotations, by its sshd's greeting, or by the settings.
//! - `plan`: which machines the file has, pure. `bench`, `debounce`: whom to leave out, and when to
//!   write, pure.

mod actor;
mod bench;
mod debounce;
mod file;
mod handle;
mod messages;
pub(crate) mod metrics;
mod offer;
mod plan;
mod probe;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::model::{KeyFile, PublicKey};

pub use actor::BuilderRegistry;
pub use handle::RegistryHandle;
pub use messages::{BuildersAsked, ListBuilders};
pub use offer::{InvalidAnnotation, Offer};
pub use plan::{BuilderState, BuilderStatus};
pub use probe::{BuilderProbe, Probe};

#[cfg(any(test, fuzzing))]
pub(crate) use offer::fuzz_annotations;

/// How long nothing must change before the file is written: a rollout changes pods one by one.
pub const DEBOUNCE: Duration = Duration::from_millis(200);

/// By what a builder is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AddressKind {
    /// Needs no DNS.
    #[default]
    PodIp,
    /// `<hostname>.<subdomain>.<namespace>.svc.<cluster domain>`, of a pod that has both; of any other
    /// its IP.
    Hostname,
}

pub struct RegistryConfig {
    /// The file, as Nix's setting `builders = @…` names it. Its directory is writable.
    pub machines: PathBuf,
    /// The private key to log in with.
    pub key: Option<KeyFile>,
    /// The one host key that all builders have.
    pub host_key: Option<PublicKey>,
    pub address: AddressKind,
    /// Of names in the DNS, such as `cluster.local`.
    pub cluster_domain: String,
    /// Of a builder that says nothing of itself; features are added to what it says.
    pub defaults: Offer,
    /// At once on each builder, whatever it says; its pod's annotation wins.
    pub jobs: Option<NonZeroU32>,
    /// A new builder is asked what it can do before it is written down: somebody probes.
    pub asks_first: bool,
    /// [`DEBOUNCE`], where nothing else is wished.
    pub debounce: Duration,
}

impl RegistryConfig {
    /// Builders by their pods' addresses and with ssh's own keys; their systems are those that they say.
    pub fn new(machines: PathBuf) -> Self {
        Self {
            machines,
            key: None,
            host_key: None,
            address: AddressKind::default(),
            cluster_domain: "cluster.local".to_owned(),
            defaults: Offer { systems: [].into(), ..Offer::default() },
            jobs: None,
            asks_first: false,
            debounce: DEBOUNCE,
        }
    }
}
