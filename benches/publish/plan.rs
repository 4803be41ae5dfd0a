//! How much is measured.

use crate::closures::{self, Size};

/// Names of what is measured with many volumes present: a bare call, a publish, its unpublish, a scrape.
pub type Beside = [&'static str; 4];
const BESIDE_1000: Beside = [
    "grpc-call-beside-1000",
    "publish-warm-beside-1000",
    "unpublish-beside-1000",
    "scrape-beside-1000",
];
const BESIDE_5000: Beside = [
    "grpc-call-beside-5000",
    "publish-warm-beside-5000",
    "unpublish-beside-5000",
    "scrape-beside-5000",
];

pub struct Plan {
    pub sizes: Vec<Size>,
    /// Cold publishes of every closure, each of a variant of its own.
    pub cold: usize,
    /// Warm publishes of every closure.
    pub warm: usize,
    /// Volumes that are present while a publish is measured again: no step may grow with them.
    pub many: [(usize, Beside); 2],
    /// Rounds of each kind of expression.
    pub expressions: usize,
    /// Plans of a collection in a large store, and of other things that take seconds.
    pub slow: usize,
    /// Few samples, and no wait for a quiet file system.
    pub is_quick: bool,
    /// Targets on disk rather than on a tmpfs.
    pub on_disk: bool,
}

impl Plan {
    pub fn from_args() -> Self {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let only = args.iter().position(|a| a == "--only").and_then(|i| args.get(i + 1));
        let wanted = |size: &Size| only.is_none_or(|only| only.split(',').any(|o| o == size.name));
        let sizes = closures::SIZES.iter().copied();
        let on_disk = args.iter().any(|a| a == "--disk");
        let is_quick = args.iter().any(|a| a == "--quick");
        if is_quick {
            let sizes = sizes.take(1).collect();
            let many = [(3, BESIDE_1000), (6, BESIDE_5000)];
            Self { sizes, cold: 2, warm: 5, many, expressions: 3, slow: 1, is_quick, on_disk }
        } else {
            let sizes = sizes.filter(wanted).collect();
            let many = [(1000, BESIDE_1000), (5000, BESIDE_5000)];
            Self { sizes, cold: 10, warm: 300, many, expressions: 50, slow: 5, is_quick, on_disk }
        }
    }
}
