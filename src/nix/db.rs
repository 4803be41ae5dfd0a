//! Reads the store's SQLite database. Blocking, read-only, in single statements or short
//! transactions: a long one would keep Nix from truncating its write-ahead log.
//!
//! Never opened as `immutable`, which misses what is committed but still in the log; but for an image's, where
//! nothing can be written and the log is empty.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::lock::lock;
use crate::model::{Closure, Index, PathInfo, Registered, StoreGraph, StorePath};

use super::NixError;
use super::error::io_error;

/// Nix writes in short transactions; a checkpoint may hold readers of a rollback journal up.
const BUSY: Duration = Duration::from_secs(5);

const CLOSURE: &str = "
with recursive closure(id) as (
    select id from ValidPaths where path = ?1
    union
    select r.reference from closure c join Refs r on r.referrer = c.id
)
select v.path, v.narSize from closure c join ValidPaths v on v.id = c.id order by v.path";

const REFERRERS: &str = "
select v.path from Refs r join ValidPaths v on v.id = r.referrer
where r.reference = ?1 limit ?2";

/// Those that refer to a path; `None`: it is not valid.
pub(super) type Known = Option<Vec<StorePath>>;

/// The store's database, with one connection that is kept while the file is the same.
pub(super) struct Database {
    file: PathBuf,
    /// Of an image.
    is_still: bool,
    open: Mutex<Option<Open>>,
}

struct Open {
    /// Device and inode: a restored or replaced database is another file.
    identity: (u64, u64),
    connection: Connection,
}

impl Database {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { file: state_dir.join("db/db.sqlite"), is_still: false, open: Mutex::new(None) }
    }

    /// Of a store that may lie on a read-only file system, where SQLite can't have its files beside the log.
    pub(super) fn of_image(state_dir: &Path) -> Self {
        Self { is_still: true, ..Self::new(state_dir) }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn is_valid(&self, path: &StorePath) -> Result<bool, NixError> {
        self.read("ask for a path in", |connection| {
            connection
                .prepare_cached("select 1 from ValidPaths where path = ?1")?
                .query_row([path.to_string()], |_| Ok(()))
                .optional()
        })
        .map(|row| row.is_some())
    }

    pub(super) fn closure(&self, root: &StorePath) -> Result<Closure, NixError> {
        let rows: Vec<(String, Option<i64>)> = self.read("read a closure from", |connection| {
            connection
                .prepare_cached(CLOSURE)?
                .query_map([root.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        if rows.is_empty() {
            return Err(NixError::NotValid { path: root.clone() });
        }
        let paths = rows
            .into_iter()
            .map(|(path, nar_size)| {
                let path = StorePath::parse(&path).map_err(|err| NixError::Command {
                    what: "reading the store's database".to_owned(),
                    detail: err.to_string(),
                })?;
                let nar_size = nar_size.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                Ok(PathInfo { path, nar_size })
            })
            .collect::<Result<_, NixError>>()?;
        let root = root.clone();
        Ok(Closure { root, paths })
    }

    /// What was built here and has no signature of this name. Content-addressed paths need none.
    pub(super) fn unsigned(&self, name: &str) -> Result<Vec<StorePath>, NixError> {
        let rows: Vec<String> = self.read("look for signatures in", |connection| {
            connection
                .prepare_cached(
                    "select path from ValidPaths where ultimate = 1 and coalesce(ca, '') = '' and \
                     instr(' ' || coalesce(sigs, ''), ' ' || ?1 || ':') = 0",
                )?
                .query_map([name], |row| row.get(0))?
                .collect()
        })?;
        Ok(rows.iter().filter_map(|path| StorePath::parse(path).ok()).collect())
    }

    /// Who refers to each of `paths`, `most` of them, from one moment.
    pub(super) fn referrers(
        &self,
        paths: &[StorePath],
        most: usize,
    ) -> Result<Vec<Known>, NixError> {
        self.read("look for referrers in", |connection| {
            let moment = connection.unchecked_transaction()?;
            let mut ids = moment.prepare_cached("select id from ValidPaths where path = ?1")?;
            let mut referrers = moment.prepare_cached(REFERRERS)?;
            let mut known = |path: &StorePath| {
                let id =
                    ids.query_row([path.to_string()], |row| row.get::<_, i64>(0)).optional()?;
                let Some(id) = id else { return Ok(None) };
                let mut rows = referrers.query((id, i64::try_from(most).unwrap_or(i64::MAX)))?;
                let mut found = Vec::new();
                while let Some(row) = rows.next()? {
                    found.extend(StorePath::parse(row.get_ref(0)?.as_str()?));
                }
                Ok(Some(found))
            };
            paths.iter().map(&mut known).collect()
        })
    }

    /// All that is valid, from one moment. One statement after the other would tell of two.
    pub(super) fn graph(&self) -> Result<StoreGraph, NixError> {
        // Mounts must not wait for it.
        let (paths, references) = self.aside().read("read all of", |connection| {
            let moment = connection.unchecked_transaction()?;
            let mut numbers = HashMap::new();
            let mut paths = Vec::new();
            let mut rows = moment
                .prepare_cached("select id, path, registrationTime, narSize from ValidPaths")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                // What is no store path is nobody's to delete.
                let Ok(path) = StorePath::parse(row.get_ref(1)?.as_str()?) else { continue };
                let number = Index::try_from(paths.len()).unwrap_or(Index::MAX);
                numbers.insert(row.get::<_, i64>(0)?, number);
                let seconds = row.get::<_, i64>(2)?;
                let nar_size = row.get::<_, Option<i64>>(3)?.unwrap_or(0);
                paths.push(Registered {
                    path,
                    at: u64::try_from(seconds).unwrap_or(0),
                    nar_size: u64::try_from(nar_size).unwrap_or(0),
                });
            }
            let mut references = Vec::new();
            let mut rows = moment.prepare_cached("select referrer, reference from Refs")?;
            let mut rows = rows.query([])?;
            while let Some(row) = rows.next()? {
                let (from, to) = (numbers.get(&row.get(0)?), numbers.get(&row.get(1)?));
                references.extend(from.copied().zip(to.copied()));
            }
            Ok((paths, references))
        })?;
        Ok(StoreGraph::new(paths, references))
    }

    /// With a connection of its own.
    pub(super) fn aside(&self) -> Self {
        Self { file: self.file.clone(), is_still: self.is_still, open: Mutex::new(None) }
    }

    pub(super) fn read<T>(
        &self,
        verb: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, NixError> {
        let meta =
            std::fs::metadata(&self.file).map_err(|err| io_error("read", &self.file, err))?;
        let identity = (meta.dev(), meta.ino());
        let mut open = lock(&self.open);
        if open.as_ref().is_none_or(|o| o.identity != identity) {
            let uri = self.uri()?;
            let connection = open_read_only(&uri).map_err(|err| self.error("open", err))?;
            *open = Some(Open { identity, connection });
        }
        let result = match &*open {
            Some(open) => query(&open.connection),
            None => unreachable!("it was opened above"),
        };
        if result.is_err() {
            // After an error a fresh connection tells a broken one from a broken file.
            *open = None;
        }
        result.map_err(|err| self.error(verb, err))
    }

    fn uri(&self) -> Result<String, NixError> {
        let uri = read_only_uri(&self.file);
        if !(self.is_still && is_on_read_only(&self.file)?) {
            return Ok(uri);
        }
        let log = self.file.with_file_name("db.sqlite-wal");
        match std::fs::metadata(&log) {
            Ok(meta) if meta.len() > 0 => {
                let reason = "what is in it can't be read where nothing can be written";
                Err(io_error("leave out", &log, std::io::Error::other(reason)))
            }
            _ => Ok(uri + "&immutable=1"),
        }
    }

    pub(super) fn error(&self, verb: &'static str, source: rusqlite::Error) -> NixError {
        NixError::Database { verb, path: self.file.clone(), source }
    }
}

fn is_on_read_only(file: &Path) -> Result<bool, NixError> {
    let stat = statvfs(file).map_err(|err| io_error("look at", file, err.into()))?;
    Ok(stat.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn open_read_only(uri: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// `file:…?mode=ro`.
pub(super) fn read_only_uri(file: &Path) -> String {
    format!("file:{}?mode=ro", escaped(file))
}

/// With everything escaped that a URI could take for its own.
pub(super) fn escaped(path: &Path) -> String {
    use std::fmt::Write;
    use std::os::unix::ffi::OsStrExt;

    let mut uri = String::new();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                uri.push(char::from(*byte));
            }
            other => {
                let _ = write!(uri, "%{other:02x}");
            }
        }
    }
    uri
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::nix::schema;

    pub(in crate::nix) fn path(letter: char, name: &str) -> StorePath {
        let hash: String = std::iter::repeat_n(letter, 32).collect();
        StorePath::from_base_name(&format!("{hash}-{name}")).unwrap()
    }

    /// A store with a → b → c, a → c, b → b, and d apart; `a` has outputs recorded.
    pub(in crate::nix) fn store(state_dir: &Path) -> Database {
        std::fs::create_dir_all(state_dir.join("db")).unwrap();
        let database = Database::new(state_dir);
        let connection = Connection::open(database.file()).unwrap();
        connection.pragma_update(None, "journal_mode", "wal").unwrap();
        connection.execute_batch(schema::CREATE).unwrap();
        connection.execute_batch(schema::INDEX).unwrap();
        for (id, letter) in [(1, 'c'), (2, 'b'), (7, 'a'), (9, 'd')] {
            connection
                .execute(
                    "insert into ValidPaths values (?1, ?2, 'sha256:x', 1234, null, ?1 * 10, 1, 's', null)",
                    (id, path(letter, "x").to_string()),
                )
                .unwrap();
        }
        for (referrer, reference) in [(7, 2), (2, 1), (7, 1), (2, 2)] {
            connection.execute("insert into Refs values (?1, ?2)", (referrer, reference)).unwrap();
        }
        connection.execute("insert into DerivationOutputs values (7, 'out', '/x')", ()).unwrap();
        database
    }

    #[test]
    fn validity_and_closure() {
        let dir = tempfile::tempdir().unwrap();
        let database = store(dir.path());
        assert!(database.is_valid(&path('a', "x")).unwrap());
        assert!(!database.is_valid(&path('a', "y")).unwrap());
        let closure = database.closure(&path('a', "x")).unwrap();
        let paths: Vec<_> = closure.paths.iter().map(|p| p.path.clone()).collect();
        assert_eq!(paths, ['a', 'b', 'c'].map(|c| path(c, "x")));
        assert_eq!(closure.nar_size(), 10 + 20 + 70);
        let error = database.closure(&path('a', "y")).unwrap_err();
        assert!(matches!(error, NixError::NotValid { .. }));
    }

    #[test]
    fn referrers_are_told_of_what_is_valid() {
        let dir = tempfile::tempdir().unwrap();
        let database = store(dir.path());
        let all = ['a', 'b', 'c', 'f'].map(|letter| path(letter, "x"));
        let both = Some(all[..2].to_vec());
        let sorted = |mut known: Vec<Known>| {
            known.iter_mut().flatten().for_each(|paths| paths.sort());
            known
        };
        let found = sorted(database.referrers(&all, 9).unwrap());
        assert_eq!(found, [Some(vec![]), both.clone(), both, None]);
        assert_eq!(database.referrers(&all[2..3], 1).unwrap()[0].as_ref().unwrap().len(), 1);
    }

    #[test]
    fn a_replaced_file_and_later_rows_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let database = store(dir.path());
        assert!(database.is_valid(&path('d', "x")).unwrap());
        let writer = Connection::open(database.file()).unwrap();
        writer.execute("delete from ValidPaths where id = 9", ()).unwrap();
        assert!(!database.is_valid(&path('d', "x")).unwrap());
        drop(writer);
        let other = tempfile::tempdir().unwrap();
        let fresh = store(other.path());
        // A database's log goes with it, or it would be played into the other one.
        std::fs::remove_dir_all(dir.path().join("db")).unwrap();
        std::fs::rename(other.path().join("db"), dir.path().join("db")).unwrap();
        assert!(database.is_valid(&path('d', "x")).unwrap());
        let error = fresh.is_valid(&path('d', "x")).unwrap_err();
        assert!(matches!(error, NixError::Io { verb: "read", .. }), "{error}");
    }

    #[test]
    fn uris_are_escaped() {
        let uri = read_only_uri(Path::new("/a b/?x#%"));
        assert_eq!(uri, "file:/a%20b/%3fx%23%25?mode=ro");
    }
}
