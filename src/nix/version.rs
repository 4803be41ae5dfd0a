//! What an installed Nix is and can do, from `nix --version`. Pure.

use std::fmt;

/// Which implementation answers to `nix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    CppNix,
    Lix,
    Determinate,
}

/// What this Nix can do; found once, at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Of the Nix it is or is like.
    pub version: (u32, u32),
    pub patch: u32,
    pub flavour: Flavour,
    /// `nix path-info --json` takes `--json-format 1` (and will want it). `nix build` has no such
    /// flag.
    pub json_format_flag: bool,
    /// The collector looks at announced paths once more before it deletes; without that, one that
    /// is announced while its neighbours are being deleted may still go.
    pub collector_rechecks: bool,
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            Flavour::CppNix => "Nix",
            Flavour::Lix => "Lix",
            Flavour::Determinate => "Determinate Nix",
        };
        write!(f, "{name} {}.{}", self.version.0, self.version.1)
    }
}

impl Capabilities {
    /// Parses the line that `nix --version` prints.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.lines().next()?.trim();
        let rest = line.strip_prefix("nix ")?;
        let flavour = if rest.contains("Lix") {
            Flavour::Lix
        } else if rest.contains("Determinate") {
            Flavour::Determinate
        } else {
            Flavour::CppNix
        };
        let (major, minor, patch) = version(rest.rsplit(' ').next()?)?;
        let version = (major, minor);
        let is_cpp = flavour != Flavour::Lix;
        Some(Self {
            version,
            patch,
            flavour,
            json_format_flag: is_cpp && version >= (2, 33),
            collector_rechecks: is_cpp && version >= (2, 35),
        })
    }
}

/// `2.34.8`, `2.4pre20210601_abc` or `2.91.0-rc1` → major, minor and, if there is one, patch.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split('.');
    let major = parts.next()?.parse().ok()?;
    let number = |part: &str| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    };
    Some((major, number(parts.next()?)?, parts.next().and_then(number).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_recognised() {
        for (line, flavour, (major, minor, patch), json_format, rechecks) in [
            ("nix (Nix) 2.8.0", Flavour::CppNix, (2, 8, 0), false, false),
            ("nix (Nix) 2.26.3\n", Flavour::CppNix, (2, 26, 3), false, false),
            ("nix (Nix) 2.34.8", Flavour::CppNix, (2, 34, 8), true, false),
            ("nix (Nix) 2.35.2", Flavour::CppNix, (2, 35, 2), true, true),
            ("nix (Nix) 2.4pre20210601_5985b8b", Flavour::CppNix, (2, 4, 0), false, false),
            ("nix (Lix, like Nix) 2.91.0", Flavour::Lix, (2, 91, 0), false, false),
            ("nix (Lix, like Nix) 2.94.0-rc1", Flavour::Lix, (2, 94, 0), false, false),
            ("nix (Determinate Nix 3.6.2) 2.29.0", Flavour::Determinate, (2, 29, 0), false, false),
        ] {
            let expected = Capabilities {
                version: (major, minor),
                patch,
                flavour,
                json_format_flag: json_format,
                collector_rechecks: rechecks,
            };
            assert_eq!(Capabilities::parse(line), Some(expected), "{line}");
        }
        for line in ["", "nix", "nixos 24", "nix (Nix) x", "nix (Nix) 2"] {
            assert_eq!(Capabilities::parse(line), None, "{line}");
        }
    }
}
