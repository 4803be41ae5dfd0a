//! Parsed types that every room shares. A value of one of these types is valid by construction, so
//! a message that carries it needs no further check. Pure: no I/O, no async.

mod address;
mod announcement;
mod attributes;
mod closure;
mod credentials;
mod graph;
mod machine;
mod pod_tokens;
mod policy;
mod secret;
mod sight;
mod signature;
mod size;
mod source;
mod source_list;
mod spec;
mod ssh_key;
mod store_path;
mod target;
mod tenant;
mod viewer;
mod volume_id;

pub use address::{Address, InvalidAddress};
pub use announcement::Announcement;
pub use attributes::Attributes;
pub use closure::{Closure, PathInfo};
pub use credentials::{HIDDEN, MAX_PASSES, hide, open_authority, without_credentials};
pub use graph::{Index, Registered, StoreGraph};
pub use machine::{Feature, InvalidKeyFile, KeyFile, Machine};
pub use pod_tokens::{PodTokens, SERVICE_ACCOUNT_TOKENS};
pub use policy::{
    Bound, FetchFrom, InvalidPolicy, Limits, MIN_EVALUATION_MEMORY, Policy, Refusal, Rules,
};
pub use secret::{ACCESS_TOKENS, InvalidSecret, NETRC, Secret};
pub use sight::Sight;
pub use signature::{SigningKey, Vouched};
pub use size::{InvalidSize, SIZE, VolumeSize};
pub use source::{ATTRIBUTES, HOST_USERS, InvalidSource, Source, System, choose_source};
pub use source_list::{InvalidEntry, SourceList};
pub use spec::{Access, Layout, PodInfo, Secrets, Shape, VolumeSpec};
pub use ssh_key::{InvalidPublicKey, PublicKey, check_known_hosts};
pub use store_path::{InvalidStorePath, STORE_DIR, StorePath};
pub use target::{InvalidTarget, TargetPath};
pub use tenant::Tenant;
pub use viewer::Viewer;
pub use volume_id::{InvalidVolumeId, VolumeId};
