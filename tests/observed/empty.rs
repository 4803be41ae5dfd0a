//! Queries that have no data here, or nothing but zeros, and why.

const NO_API_SERVER: &str =
    "here is no API server, by whose word a cache finds builders and a node its pods";
const A_FAULT: &str = "it counts faults of the driver or of the machine, and the load brings none";
const AT_THE_START: &str = "it happens at the start, before Prometheus reads";
const FIRST_ONLY: &str = "its series begins with the first time, of which there is no rate";
const TOO_SMALL: &str = "the load is too small for it";
const FLEETING: &str = "a fetch may be over between two looks of Prometheus'";

/// The dashboard, the panel, the letter of its query, and the reason.
pub(crate) type Entry = (&'static str, &'static str, &'static str, &'static str);

pub(crate) const EMPTY: &[Entry] = &[
    ("builds-and-cache", "Builders", "A", NO_API_SERVER),
    ("builds-and-cache", "Slots of builders", "A", NO_API_SERVER),
    ("builds-and-cache", "List of builders", "A", NO_API_SERVER),
    ("builds-and-cache", "List of builders", "B", NO_API_SERVER),
];

/// They may be zero all the time.
pub(crate) const STILL: &[Entry] = &[
    ("actors", "Mailboxes", "A", TOO_SMALL),
    ("actors", "Restarts", "A", A_FAULT),
    ("actors", "Undelivered", "A", A_FAULT),
    ("actors", "Registrations", "A", AT_THE_START),
    ("actors", "Exits of children", "A", A_FAULT),
    ("actors", "Replaced children", "A", FIRST_ONLY),
    ("actors", "Replaced children", "B", TOO_SMALL),
    ("actors", "Log lines left out", "A", TOO_SMALL),
    ("builds-and-cache", "Bytes under way", "A", FLEETING),
    ("builds-and-cache", "Uploads by outcome", "B", TOO_SMALL),
    ("builds-and-cache", "Sessions refused", "A", TOO_SMALL),
    ("builds-and-cache", "Transfers", "A", TOO_SMALL),
    ("gc-and-disk", "Bytes lacking", "A", TOO_SMALL),
    ("gc-and-disk", "Inodes lacking", "A", TOO_SMALL),
    ("gc-and-disk", "Trouble", "A", A_FAULT),
    ("gc-and-disk", "Trouble", "B", A_FAULT),
    ("mounts", "Against the objectives", "A", A_FAULT),
    ("mounts", "Against the objectives", "B", A_FAULT),
    ("mounts", "Against the objectives", "C", TOO_SMALL),
    ("mounts", "Damage", "A", A_FAULT),
    ("mounts", "Damage", "B", A_FAULT),
    ("mounts", "Keeping warm fails", "A", FIRST_ONLY),
    ("mounts", "Pods", "A", NO_API_SERVER),
    ("mounts", "Pods", "B", NO_API_SERVER),
    ("mounts", "Pods", "C", NO_API_SERVER),
    ("mounts", "Events on pods", "A", NO_API_SERVER),
    ("mounts", "Events on pods", "B", NO_API_SERVER),
    ("overview", "Not ready", "A", A_FAULT),
];
