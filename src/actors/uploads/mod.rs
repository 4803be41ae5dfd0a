//! Uploads: what was realised here goes to the cluster's cache, in the background.
//!
//! - [`CacheUploader`]
//!   - owns: the queue (`queue`, pure) and the pushes under way;
//!   - hears: [`Realised`] from builds, [`ListUploads`] and [`RetryUploads`] from the admin socket,
//!     [`Stop`], the ends of its pushes and its own timer;
//!   - asks: Nix, one push of up to [`BATCH`] closures for each slot;
//!   - on restart: forgets, and reads the records again; a push under way is cut off.
//! - `offers`: what comes into the queue: closures and, if they are to be uploaded, derivations, each a
//!   path like any other.
//! - `disk`: a record and a GC root for each closure in the queue, changed one after the other.
//! - `record`: the records' form.
//!
//! Nobody waits for it: builds tell, and what the queue has no room for is counted and dropped.

mod actor;
mod disk;
mod handle;
mod messages;
pub(crate) mod metrics;
mod offers;
mod pushes;
mod queue;
mod record;
mod report;
mod sent;

pub use actor::{CacheUploader, UploadsConfig};
pub use handle::UploadsHandle;
pub use messages::{ListUploads, Realised, RetryUploads, Stop};
pub use queue::{BATCH, MOST};
pub use record::Unreadable;
pub use report::{UploadSummary, UploadsReport};

#[cfg(any(test, fuzzing))]
pub(crate) use record::fuzz_record;
