//! The index of last use, as SQLite has it. Blocking.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use crate::model::StorePath;

const VERSION: i64 = 1;

const CREATE: &str = "
create table used (path text primary key not null, at integer not null) without rowid, strict;
create table born (at integer not null) strict;
";

/// A record of another one's commit is short.
pub(super) const BUSY: Duration = Duration::from_secs(5);

/// It is no index: no database, a broken one, or another one.
pub(super) fn is_none(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    match error {
        // What fails to say more is SQL that does not fit.
        rusqlite::Error::SqliteFailure(error, _) => {
            matches!(error.code, DatabaseCorrupt | NotADatabase)
                || error.extended_code == rusqlite::ffi::SQLITE_ERROR
        }
        _ => true,
    }
}

/// With the files that SQLite has beside it, which must not be played into another.
pub(super) fn remove_with_log(file: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        drop(fs::remove_file(name)); // not there, or the next step says why
    }
}

pub(super) fn open(file: &Path, now: u64) -> rusqlite::Result<(Connection, u64)> {
    let mut connection = Connection::open(file)?;
    connection.busy_timeout(BUSY)?;
    // A commit survives the process; the last ones may not survive the machine.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 0 {
        let making = connection.transaction()?;
        making.execute_batch(CREATE)?;
        making.execute("insert into born values (?1)", [now.cast_signed()])?;
        making.pragma_update(None, "user_version", VERSION)?;
        making.commit()?;
    }
    let since = born(&connection)?;
    read(&connection)?;
    Ok((connection, since))
}

pub(super) fn born(connection: &Connection) -> rusqlite::Result<u64> {
    let at: i64 = connection.query_row("select at from born", (), |row| row.get(0))?;
    Ok(at.max(0).cast_unsigned())
}

pub(super) fn read(connection: &Connection) -> rusqlite::Result<HashMap<StorePath, u64>> {
    let mut rows = connection.prepare_cached("select path, at from used")?;
    let mut rows = rows.query(())?;
    let mut known = HashMap::new();
    while let Some(row) = rows.next()? {
        if let Ok(path) = StorePath::parse(row.get_ref(0)?.as_str()?) {
            known.insert(path, row.get::<_, i64>(1)?.max(0).cast_unsigned());
        }
    }
    Ok(known)
}

pub(super) fn write(
    connection: &mut Connection,
    noted: &HashMap<StorePath, u64>,
) -> rusqlite::Result<()> {
    let all = connection.transaction()?;
    for (path, at) in noted {
        all.prepare_cached(
            "insert into used values (?1, ?2) on conflict do update set at = max(at, excluded.at)",
        )?
        .execute((path.to_string(), at.cast_signed()))?;
    }
    all.commit()
}
