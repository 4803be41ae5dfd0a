//! Holes of Nix's own that its builds reach, by version. Pure.
//!
//! From the advisories of the Nix project, and Lix's of June 2025. A distribution may have mended one without a new
//! version, which no version says.

use super::{Capabilities, Flavour};

type Version = (u32, u32, u32);

/// What is known of a version.
#[derive(Debug, PartialEq, Eq)]
pub struct Hole {
    /// As others call it.
    pub id: &'static str,
    /// What a build can do.
    pub what: &'static str,
    since: Version,
    /// The first without it of each branch that was mended; newer branches never had it.
    mended: &'static [Version],
}

const NIX: [Hole; 3] = [
    Hole {
        id: "CVE-2024-27297",
        what: "a fixed-output build can change what it made after its hash was checked",
        since: (0, 0, 0),
        mended: &[(2, 3, 18), (2, 18, 2), (2, 19, 4), (2, 20, 5)],
    },
    Hole {
        id: "CVE-2025-52992",
        what: "builds can get at the store and at each other's files from outside of the sandbox",
        since: (0, 0, 0),
        mended: &[(2, 24, 15), (2, 26, 4), (2, 28, 4), (2, 29, 1)],
    },
    Hole {
        id: "CVE-2026-39860",
        what: "a fixed-output build can overwrite any file of the node as root",
        since: (2, 18, 2),
        mended: &[
            (2, 28, 6),
            (2, 29, 3),
            (2, 30, 4),
            (2, 31, 4),
            (2, 32, 7),
            (2, 33, 4),
            (2, 34, 5),
        ],
    },
];

const LIX: [Hole; 1] = [Hole { since: (2, 90, 0), mended: LIX_MENDED, ..NIX[1] }];
const LIX_MENDED: &[Version] = &[(2, 91, 2), (2, 92, 2), (2, 93, 1)];

impl Hole {
    fn is_in(&self, version: Version) -> bool {
        let (major, minor, _) = version;
        let of_branch = self.mended.iter().find(|mended| (mended.0, mended.1) == (major, minor));
        let newest = self.mended.last();
        version >= self.since
            && match of_branch {
                Some(mended) => version < *mended,
                None => newest.is_none_or(|newest| version < *newest),
            }
    }
}

/// Of Determinate Nix, whose versions are its own, nothing is known.
pub fn holes(nix: &Capabilities) -> impl Iterator<Item = &'static Hole> {
    let all: &[Hole] = match nix.flavour {
        Flavour::CppNix => &NIX,
        Flavour::Lix => &LIX,
        Flavour::Determinate => &[],
    };
    let version = (nix.version.0, nix.version.1, nix.patch);
    all.iter().filter(move |hole| hole.is_in(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_open_until_the_branchs_version_that_mended_it() {
        let open = |line: &str| {
            let nix = Capabilities::parse(line).unwrap();
            holes(&nix).map(|hole| hole.id).collect::<Vec<_>>()
        };
        let (first, second, third) = ("CVE-2024-27297", "CVE-2025-52992", "CVE-2026-39860");
        for (version, expected) in [
            ("2.3.17", &[first, second][..]),
            ("2.3.18", &[second]),
            ("2.8.0", &[first, second]),
            ("2.18.1", &[first, second]),
            ("2.18.2", &[second, third]),
            ("2.24.14", &[second, third]),
            ("2.24.15", &[third]),
            ("2.25.5", &[second, third]),
            ("2.26.3", &[second, third]),
            ("2.28.5", &[third]),
            ("2.28.6", &[]),
            ("2.34.4", &[third]),
            ("2.34.5", &[]),
            ("2.35.0", &[]),
            ("3.0.0", &[]),
        ] {
            assert_eq!(open(&format!("nix (Nix) {version}")), expected, "{version}");
        }
        assert_eq!(open("nix (Lix, like Nix) 2.91.1"), [second]);
        assert_eq!(open("nix (Lix, like Nix) 2.93.1"), [""; 0]);
        assert_eq!(open("nix (Determinate Nix 3.6.2) 2.20.0"), [""; 0]);
    }
}
