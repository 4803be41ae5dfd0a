//! What an evaluator sees, and its limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::jail::{Bind, Guard, Jail, Limits, capabilities};
use crate::model::StorePath;

use super::command::Config;
use super::eval_programs::Found;

/// Where things are inside of the jail: below no directory of the node that an operator may show.
pub(super) const HOME: &str = "/nix-csi/home";
/// Where git looks by itself, too.
pub(super) const NETRC: &str = "/nix-csi/home/.netrc";
pub(super) const SOCKET: &str = "/nix-csi/nix-daemon.socket";
const STORE: &str = crate::model::STORE_DIR;
/// Of a tenant's own store, which is all below here.
const NIX: &str = "/nix";
pub(super) const STATE: &str = "/nix/var/nix";

/// What Nix and its fetchers (git, ssh, tar) are made of on a distribution. Not there: skipped.
const PROGRAMS: [&str; 8] =
    ["/bin", "/sbin", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/etc/alternatives"];
/// What name resolution, certificates and the dynamic linker read.
const ETC: [&str; 12] = [
    "/etc/ca-certificates",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/nsswitch.conf",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
];
/// Threads and processes of all evaluations together; Nix has a dozen, git a few.
const PROCESSES: u64 = 1024;
/// `/tmp`, where sources are unpacked, is memory that no limit of a process counts: a part of that.
const TMP_PART: u64 = 4;
/// All that it sees, beside programs.
pub(super) struct Sights<'a> {
    pub(super) home: &'a Path,
    pub(super) seen: Seen<'a>,
    /// Of this request's.
    pub(super) netrc: Option<&'a Path>,
}

/// What it sees of stores.
pub(super) enum Seen<'a> {
    /// The node's store and its daemon.
    Store,
    /// A store of the tenant's own, and of the node's the programs that it needs itself.
    Own { store: &'a Path, programs: &'a Found },
}

pub(super) fn binds(config: &Config, socket: Option<&Path>, sights: &Sights) -> Vec<Bind> {
    let evaluator = &config.evaluator;
    let mut binds: Vec<Bind> =
        PROGRAMS.iter().map(|dir| Bind::read_only_if_there(*dir, *dir)).collect();
    // Links such as resolv.conf lead out of what is bound: the file itself is.
    let real = |path: &Path| fs::canonicalize(path).ok();
    let named = config.environment.iter().filter(|(name, _)| name == "NIX_SSL_CERT_FILE");
    let files = ETC.iter().map(PathBuf::from).chain(named.map(|(_, path)| path.into()));
    binds.extend(files.filter_map(|file| Some(Bind::read_only_if_there(real(&file)?, file))));
    binds.extend(evaluator.visible.iter().map(|dir| Bind::read_only_if_there(dir, dir)));
    match &sights.seen {
        Seen::Store => binds.push(Bind::read_only(&config.store_dir, STORE)),
        Seen::Own { store, programs } => {
            binds.push(Bind::writable(*store, NIX));
            // What the operator has every expression find.
            let entries = evaluator.nix_path.iter();
            let values =
                entries.map(|entry| entry.split_once('=').map_or(&**entry, |(_, path)| path));
            let found = values.filter_map(top_of);
            binds.extend(programs.closure.iter().cloned().chain(found).map(|path| {
                let source = config.store_dir.join(path.base_name());
                Bind::read_only_if_there(source, path.to_string())
            }));
        }
    }
    binds.push(Bind::writable(sights.home, HOME));
    binds.extend(sights.netrc.map(|file| Bind::read_only(file, NETRC)));
    if let Some(socket) = socket {
        binds.push(Bind::writable(socket, SOCKET));
    }
    binds
}

/// The store path that a path is, or lies in.
pub(super) fn top_of(path: &str) -> Option<StorePath> {
    let rest = path.strip_prefix(STORE)?.strip_prefix('/')?;
    StorePath::from_base_name(rest.split('/').next()?).ok()
}

pub(super) fn guard(config: &Config, (settings, memory): (usize, u64), binds: Vec<Bind>) -> Guard {
    let evaluator = &config.evaluator;
    Guard {
        input: None,
        grace: Duration::ZERO,
        config_bytes: settings,
        ends_orphans: false,
        listens: false,
        yields: true,
        limits: Limits {
            data: Some(memory),
            processes: Some(PROCESSES),
            file: Some(evaluator.disk),
        },
        keeps: config.keeps(capabilities::NOTHING),
        filtered: config.least_privilege,
        jail: Some(Jail {
            uid: evaluator.uid,
            gid: evaluator.uid,
            home: HOME.into(),
            chdir: HOME.into(),
            tmp_bytes: memory / TMP_PART,
            binds,
        }),
    }
}
