//! Why a path stays, for people. Pure.

use crate::model::{Index, StoreGraph};

/// What a root is, from its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A view of the driver's, which volumes show.
    View(String),
    /// A realisation of the driver's.
    Build(String),
    /// A closure that is not in the cache yet.
    Upload(String),
    /// It has the path open, or runs it.
    Process(u32),
    /// A client of the store that has just made it, or asked for it.
    Client(u32),
    /// Nix does not say which.
    SomeProcess,
    /// Anything else: a profile, a result of `nix build`.
    Link(String),
}

impl Holder {
    /// `name` as Nix prints it: see [`crate::nix::Root`].
    pub fn of(name: &str) -> Self {
        let number = |text: &str| text.split(['/', '}']).next().and_then(|n| n.parse().ok());
        if let Some(pid) = name.strip_prefix("/proc/").and_then(number) {
            return Self::Process(pid);
        }
        if let Some(pid) = name.strip_prefix("{temp:").and_then(number) {
            return Self::Client(pid);
        }
        if name.starts_with('{') {
            return Self::SomeProcess;
        }
        match of_a_driver(name) {
            Some((_, "views", id)) => Self::View(id.to_owned()),
            Some((_, "builds", id)) => Self::Build(id.to_owned()),
            Some((_, "uploads", id)) => Self::Upload(id.to_owned()),
            _ => Self::Link(name.to_owned()),
        }
    }
}

/// `/nix/var/nix/gcroots/nix-csi-…`, `views`, and the name.
fn of_a_driver(name: &str) -> Option<(&str, &str, &str)> {
    let (before, id) = name.rsplit_once('/')?;
    let (dir, kind) = before.rsplit_once('/')?;
    let (gcroots, own) = dir.rsplit_once('/')?;
    let is_a_drivers = ["views", "builds", "uploads"].contains(&kind)
        && own.starts_with("nix-csi")
        && gcroots.ends_with("/gcroots");
    is_a_drivers.then_some((dir, kind, id))
}

/// The directory of a driver's roots that this one lies in: `/nix/var/nix/gcroots/nix-csi-…`.
pub fn drivers_directory(name: &str) -> Option<&str> {
    of_a_driver(name).map(|(dir, ..)| dir)
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::View(id) => write!(f, "the view {id}: `nix-csi status` shows its volumes"),
            Self::Build(id) => write!(f, "the realisation {id}: `nix-csi builds` shows it"),
            Self::Upload(id) => write!(f, "the upload {id}: `nix-csi uploads` shows it"),
            Self::Process(pid) => write!(f, "the process {pid}, which has it open or runs it"),
            Self::Client(pid) => {
                write!(f, "the process {pid}, which has just made it or asked for it")
            }
            Self::SomeProcess => f.write_str("a process that has it open or runs it"),
            Self::Link(link) => write!(f, "the GC root {link}"),
        }
    }
}

/// The way from a root to `path`, the root first; empty: nothing holds it. `reached`: see
/// [`StoreGraph::reached`].
pub fn way(graph: &StoreGraph, reached: &[Option<Index>], path: Index) -> Vec<Index> {
    let mut way = Vec::new();
    let mut at = path;
    while let Some(by) = reached[at as usize] {
        way.push(at);
        if by == at || way.len() > graph.len() {
            break;
        }
        at = by;
    }
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_told_by_their_names() {
        let ours = "/nix/var/nix/gcroots/nix-csi-0123456789ab";
        for (name, holder) in [
            (format!("{ours}/views/abc.1"), Holder::View("abc.1".into())),
            (format!("{ours}/builds/7"), Holder::Build("7".into())),
            ("/nix/var/nix/gcroots/nix-csi/uploads/abc".into(), Holder::Upload("abc".into())),
            ("/proc/12/exe".into(), Holder::Process(12)),
            ("{temp:34}".into(), Holder::Client(34)),
            ("{lsof}".into(), Holder::SomeProcess),
            (
                "/nix/var/nix/profiles/default-1-link".into(),
                Holder::Link("/nix/var/nix/profiles/default-1-link".into()),
            ),
            (
                "/nix/var/nix/gcroots/other/views/x".into(),
                Holder::Link("/nix/var/nix/gcroots/other/views/x".into()),
            ),
        ] {
            assert_eq!(Holder::of(&name), holder, "{name}");
        }
    }

    #[test]
    fn roots_of_drivers_are_told_by_their_directory() {
        let dir = "/nix/var/nix/gcroots/nix-csi-0123456789ab";
        assert_eq!(drivers_directory(&format!("{dir}/views/x.1")), Some(dir));
        for other in
            ["{temp:1}", "/nix/var/nix/gcroots/mine", "/a/gcroots/x/views/y", "/proc/1/exe"]
        {
            assert_eq!(drivers_directory(other), None, "{other}");
        }
    }
}
