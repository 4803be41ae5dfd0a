//! Reading sources and writing what daemons read. Blocking.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::files::{read_file, write_if_other};
use super::keys::{self, Read};
use crate::actors::metrics;
use crate::lock::lock;
use crate::metrics::count;
use crate::model::{PublicKey, check_known_hosts};
use crate::nix::check_signing_key;

/// One thing that is kept in step.
#[derive(Debug, Clone)]
pub struct Item {
    pub kind: Kind,
    /// What the operator mounts.
    pub source: PathBuf,
    /// What the daemon reads; ours alone.
    pub target: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A directory of `*.pub` files to one file for sshd.
    AuthorizedKeys,
    /// A private key, which ssh takes only if nobody else may read it.
    PrivateKey,
    KnownHosts,
    /// A secret key of Nix's.
    SigningKey,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizedKeys => "authorized-keys",
            Self::PrivateKey => "private-key",
            Self::KnownHosts => "known-hosts",
            Self::SigningKey => "signing-key",
        }
    }

    /// The directory in which a change of the source shows.
    pub(super) fn watched(self, source: &Path) -> PathBuf {
        match self {
            Self::AuthorizedKeys => source.to_owned(),
            _ => directory(source),
        }
    }

    /// Who but root may read what the daemon reads.
    fn mode(self) -> u32 {
        match self {
            Self::AuthorizedKeys | Self::KnownHosts => 0o644,
            Self::PrivateKey | Self::SigningKey => 0o600,
        }
    }
}

pub(in crate::actors) fn directory(file: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("/")).to_owned()
}

/// What an item was found to be, for the next time.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    good: BTreeMap<String, Vec<PublicKey>>,
    /// What was refused and already told.
    told: Vec<String>,
    /// It could be read since this process began.
    seen: bool,
}

/// One look at an item.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) known: Known,
    pub(super) written: bool,
    /// What can't be used, and was not told before.
    pub(super) news: Vec<String>,
    pub(super) refused: usize,
}

impl Outcome {
    /// In logs and metrics.
    pub(super) fn tell(&self, item: &Item) {
        let kind = item.kind.as_str();
        if self.written {
            tracing::info!(kind, source = %item.source.display(), "brought up to date");
            metrics::CONFIG_WRITES.with_label_values(&[kind]).inc();
        }
        for refused in &self.news {
            tracing::warn!(kind, "{refused}; what was good last stays, if anything was");
        }
        metrics::CONFIG_REFUSED.with_label_values(&[kind]).set(count(self.refused));
    }
}

/// Blocking. A first look at what is read before the actor has its own: files alone, whose last good one
/// stays.
pub fn bring_up_to_date(items: &[Item]) {
    for item in items.iter().filter(|item| item.kind != Kind::AuthorizedKeys) {
        sync(item, &Known::default()).tell(item);
    }
}

/// Whether the process's copies have been removed at its end. Held while one is written.
static ENDED: Mutex<bool> = Mutex::new(false);

/// Blocking. Removes the directory of copies; whoever still looks at sources writes none any more.
pub fn remove_copies(dir: &Path) -> io::Result<()> {
    remove_under(&ENDED, dir)
}

fn remove_under(ended: &Mutex<bool>, dir: &Path) -> io::Result<()> {
    let mut ended = lock(ended);
    *ended = true;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn sync(item: &Item, known: &Known) -> Outcome {
    sync_under(&ENDED, item, known)
}

fn sync_under(ended: &Mutex<bool>, item: &Item, known: &Known) -> Outcome {
    let ended = lock(ended);
    if *ended {
        return Outcome { known: known.clone(), written: false, news: vec![], refused: 0 };
    }
    if item.kind == Kind::AuthorizedKeys && !known.seen {
        // Who is no longer welcome must not come in because nobody can tell.
        drop(fs::remove_file(&item.target));
    }
    let done = match item.kind {
        Kind::AuthorizedKeys => authorized_keys(item, known),
        _ => one_file(item).map(|written| (BTreeMap::new(), written, vec![])),
    };
    let seen = known.seen || done.is_ok();
    let (good, written, refused) =
        done.unwrap_or_else(|why| (known.good.clone(), false, vec![why]));
    let news = refused.iter().filter(|why| !known.told.contains(why)).cloned().collect();
    let count = refused.len();
    Outcome { known: Known { good, told: refused, seen }, written, news, refused: count }
}

type Synced = (BTreeMap<String, Vec<PublicKey>>, bool, Vec<String>);

fn authorized_keys(item: &Item, known: &Known) -> Result<Synced, String> {
    let read = read_keys(&item.source)
        .map_err(|e| format!("can't read the directory {}: {e}", item.source.display()))?;
    let refused = read.iter().filter_map(|(name, keys)| {
        let why = keys.as_ref().err()?;
        let file = item.source.join(name);
        Some(format!("{}: {why}: write lines such as `ssh-ed25519 AAAA… name`", file.display()))
    });
    let mut refused: Vec<_> = refused.collect();
    let good = keys::merge(&known.good, &read);
    let text = keys::render(&good);
    if text.is_empty() {
        let source = item.source.display();
        refused.push(format!("{source} has no key in a *.pub file: nobody can log in"));
    }
    let written = write_if_other(&item.target, text.as_bytes(), item.kind.mode())?;
    Ok((good, written, refused))
}

fn read_keys(dir: &Path) -> io::Result<Read> {
    let mut read = Read::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_key_file(name)) else {
            continue;
        };
        let keys = read_file(&entry.path()).and_then(|text| {
            keys::parse(std::str::from_utf8(&text).map_err(|_| "it is not UTF-8".to_owned())?)
        });
        read.insert(name.to_owned(), keys);
    }
    Ok(read)
}

/// As ssh-keygen names them; `..data` and the like are the kubelet's.
fn is_key_file(name: &str) -> bool {
    !name.starts_with('.') && name.strip_suffix(".pub").is_some()
}

fn one_file(item: &Item) -> Result<bool, String> {
    let text = read_file(&item.source).and_then(|text| {
        let utf8 = std::str::from_utf8(&text).map_err(|_| "it is not UTF-8".to_owned())?;
        check(item.kind, utf8)?;
        Ok(text)
    });
    let mut text = text.map_err(|why| format!("{}: {why}", item.source.display()))?;
    // ssh wants a line's end after the last line, and tools that make Secrets drop it.
    if item.kind == Kind::PrivateKey && text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    write_if_other(&item.target, &text, item.kind.mode())
}

/// Nothing of a secret gets into the reason.
fn check(kind: Kind, text: &str) -> Result<(), String> {
    match kind {
        Kind::AuthorizedKeys => keys::parse(text).map(drop),
        Kind::PrivateKey => {
            let first = text.lines().next().unwrap_or_default().trim_end();
            if first.starts_with("-----BEGIN ") && first.ends_with("PRIVATE KEY-----") {
                return Ok(());
            }
            Err("it is no private key: ssh-keygen -t ed25519 makes one".to_owned())
        }
        Kind::KnownHosts => check_known_hosts(text)
            .map_err(|why| format!("{why}: write lines such as `nix-cache ssh-ed25519 AAAA…`")),
        Kind::SigningKey => check_signing_key(text).map_err(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIMZ3PzUgQvNUBcQAMzvpdYYDXKHoxGWYSqK/dLtTN1fh";

    /// What a kubelet does: a new directory, and a rename over the link to it.
    fn swap(mount: &Path, version: &str, files: &[(&str, &str)]) {
        let data = mount.join(version);
        fs::create_dir_all(&data).unwrap();
        for (name, text) in files {
            fs::write(data.join(name), text).unwrap();
            let link = mount.join(name);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(Path::new("..data").join(name), link).unwrap();
        }
        std::os::unix::fs::symlink(version, mount.join("..new")).unwrap();
        fs::rename(mount.join("..new"), mount.join("..data")).unwrap();
    }

    #[test]
    fn a_mounted_secret_is_followed_through_its_links() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("keys"), dir.path().join("run/authorized_keys"));
        let item = Item { kind: Kind::AuthorizedKeys, source: source.clone(), target };
        let first = sync(&item, &Known::default());
        assert!(!first.written && first.news[0].starts_with("can't read the directory"));
        // Of an earlier process, which could read it.
        fs::create_dir_all(item.target.parent().unwrap()).unwrap();
        fs::write(&item.target, "restrict of somebody who may have left").unwrap();
        assert!(!sync(&item, &Known::default()).written);
        assert!(fs::symlink_metadata(&item.target).is_err());

        swap(&source, "..1", &[("a.pub", KEY), ("notes.txt", "no key")]);
        let second = sync(&item, &first.known);
        assert!(second.written && second.refused == 0, "{second:?}");
        let text = fs::read_to_string(&item.target).unwrap();
        assert_eq!(text, format!("restrict {KEY}\n"));
        assert!(!sync(&item, &second.known).written);

        swap(&source, "..2", &[("a.pub", "nonsense")]);
        let third = sync(&item, &second.known);
        assert!(!third.written && third.refused == 1);
        assert!(third.news[0].contains("a.pub: line 1: "), "{:?}", third.news);
        assert_eq!(fs::read_to_string(&item.target).unwrap(), text);
        // Told once.
        let again = sync(&item, &third.known);
        assert!(again.news.is_empty() && again.refused == 1);
    }

    #[test]
    fn a_private_key_is_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("id"), dir.path().join("run/id"));
        let item = Item { kind: Kind::PrivateKey, source: source.clone(), target: target.clone() };
        let good = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----";
        fs::write(&source, good).unwrap();
        assert!(sync(&item, &Known::default()).written);
        assert_eq!(fs::read_to_string(&target).unwrap(), format!("{good}\n"));
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&source, KEY).unwrap();
        let refused = sync(&item, &Known::default());
        assert!(refused.news[0].contains("it is no private key"), "{refused:?}");
        assert!(fs::read_to_string(&target).unwrap().starts_with(good));
        // Somebody opened it up.
        fs::write(&source, good).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(sync(&item, &Known::default()).written);
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_such_file_leaves_the_last_good_one() {
        let dir = tempfile::tempdir().unwrap();
        let signing = format!("nodes-1:{}==", "A".repeat(86));
        let known = format!("nix-cache {KEY}\n");
        for (kind, good, mode) in
            [(Kind::KnownHosts, &*known, 0o644), (Kind::SigningKey, &*signing, 0o600)]
        {
            let (source, target) = (dir.path().join("source"), dir.path().join(kind.as_str()));
            let item = Item { kind, source: source.clone(), target: target.clone() };
            fs::write(&source, good).unwrap();
            assert!(sync(&item, &Known::default()).written);
            assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, mode);
            fs::write(&source, "no h s3cret of that kind\n").unwrap();
            let refused = sync(&item, &Known::default());
            assert!(refused.refused == 1 && !refused.news[0].contains("s3cret"), "{refused:?}");
            fs::remove_file(&source).unwrap();
            assert_eq!(sync(&item, &Known::default()).refused, 1);
            assert_eq!(fs::read_to_string(&target).unwrap(), good, "{kind:?}");
        }
    }

    #[test]
    fn who_still_looks_after_the_end_writes_no_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (source, copies) = (dir.path().join("known_hosts"), dir.path().join("mounted"));
        fs::write(&source, format!("host {KEY}\n")).unwrap();
        let item = Item { kind: Kind::KnownHosts, source, target: copies.join("known-hosts") };
        let ended = Mutex::new(false);
        let look = || sync_under(&ended, &item, &Known::default());
        assert!(look().written);
        remove_under(&ended, &copies).unwrap();
        let outcome = look();
        assert!(!outcome.written && outcome.refused == 0, "{outcome:?}");
        assert!(fs::symlink_metadata(&copies).is_err());
        remove_under(&ended, &copies).unwrap();
    }

    #[test]
    fn no_pipe_and_no_huge_file_holds_it_up() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("keys");
        fs::create_dir(&source).unwrap();
        let pipe = source.join("p.pub");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        fs::write(source.join("big.pub"), vec![b'#'; 300 << 10]).unwrap();
        let item = Item { kind: Kind::AuthorizedKeys, source, target: dir.path().join("out") };
        let outcome = sync(&item, &Known::default());
        assert!(
            outcome
                .news
                .iter()
                .any(|n| n.contains("big.pub: can't read it: it has more than 262144 bytes"))
        );
        assert!(outcome.news.iter().any(|n| n.contains("p.pub: can't read it: it is not a file")));
    }
}
