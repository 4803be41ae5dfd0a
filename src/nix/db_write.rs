//! Writes the database of one closure, which its view shows at `/nix/var/nix/db`, by copying rows
//! of the store's own. A crash in between is harmless: whoever makes a view begins again in an
//! empty directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rusqlite::Connection;

use crate::model::Closure;

use super::NixError;
use super::db::{Database, read_only_uri};
use super::error::io_error;
use super::schema;

/// Copies exactly the wanted rows. References of a closure's paths lie in the closure, and row ids
/// stay the store's, so that references need no translation.
///
/// `cross join` is SQLite's for "this order": on its own it goes through all of a large store and looks each row up
/// in the few that are wanted (sqlite.org/optoverview.html, "Manual Control Of Query Plans Using CROSS JOIN").
const COPY: [&str; 3] = [
    "insert into main.ValidPaths
         select s.* from temp.Wanted w cross join store.ValidPaths s on s.path = w.path order by s.id",
    "insert into main.Refs
         select s.* from main.ValidPaths v cross join store.Refs s on s.referrer = v.id",
    "insert into main.DerivationOutputs
         select s.* from main.ValidPaths v cross join store.DerivationOutputs s on s.drv = v.id",
];

pub(super) fn write(store: &Database, closure: &Closure, db_dir: &Path) -> Result<(), NixError> {
    fs::create_dir_all(db_dir).map_err(|err| io_error("create", db_dir, err))?;
    let file = db_dir.join("db.sqlite");
    let copied = copy(&file, store, closure).map_err(|source| NixError::Database {
        verb: "copy a closure into",
        path: file.clone(),
        source,
    })?;
    if copied != closure.paths.len() {
        // Somebody collected it below us: a database with holes would lie to Nix.
        let path = closure.root.clone();
        return Err(NixError::NotValid { path });
    }
    finish(&file, db_dir)
}

/// The `schema` file and the modes that Nix gives.
pub(super) fn finish(file: &Path, db_dir: &Path) -> Result<(), NixError> {
    let schema = db_dir.join("schema");
    fs::write(&schema, schema::VERSION).map_err(|err| io_error("write", &schema, err))?;
    for file in [file, &schema] {
        fs::set_permissions(file, Permissions::from_mode(0o644))
            .map_err(|err| io_error("set the mode of", file, err))?;
    }
    Ok(())
}

/// A new database without journal and syncs: it is worthless until it is complete.
pub(super) fn create(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.execute_batch(
        // `main` alone: the store's database is attached later and keeps its own ways.
        "pragma main.synchronous = off; pragma main.journal_mode = off;
         pragma main.locking_mode = exclusive; pragma temp_store = memory;
         pragma foreign_keys = off; begin;",
    )?;
    connection.execute_batch(schema::CREATE)?;
    Ok(connection)
}

/// A new database beside the store's, and the list of what is wanted, in a transaction.
fn beside(file: &Path, store: &Database) -> rusqlite::Result<Connection> {
    let connection = create(file)?;
    // The store can be attached outside a transaction only.
    connection.execute_batch("commit")?;
    connection.execute("attach ?1 as store", [read_only_uri(store.file())])?;
    connection.execute_batch("begin; create table temp.Wanted (path text primary key)")?;
    Ok(connection)
}

/// How many paths were copied.
fn copy(file: &Path, store: &Database, closure: &Closure) -> rusqlite::Result<usize> {
    let connection = beside(file, store)?;
    {
        let mut insert = connection.prepare("insert into temp.Wanted values (?1)")?;
        for info in &closure.paths {
            insert.execute([info.path.to_string()])?;
        }
    }
    for statement in COPY {
        connection.execute(statement, ())?;
    }
    let copied: i64 =
        connection.query_row("select count(*) from main.ValidPaths", (), |r| r.get(0))?;
    connection.execute_batch(schema::INDEX)?;
    connection.execute_batch("commit; detach store")?;
    connection.close().map_err(|(_, err)| err)?;
    Ok(usize::try_from(copied).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use rusqlite::OpenFlags;

    use super::*;
    use crate::nix::db::tests::{path, store};

    #[test]
    fn exactly_the_closure_is_copied() {
        let dir = tempfile::tempdir().unwrap();
        let database = store(dir.path());
        let closure = database.closure(&path('a', "x")).unwrap();
        let target = dir.path().join("view/db");
        write(&database, &closure, &target).unwrap();

        let copied =
            Connection::open_with_flags(target.join("db.sqlite"), OpenFlags::SQLITE_OPEN_READ_ONLY)
                .unwrap();
        let count = |sql: &str| copied.query_row(sql, (), |r| r.get::<_, i64>(0)).unwrap();
        assert_eq!(count("select count(*) from ValidPaths"), 3);
        assert_eq!(count("select count(*) from Refs"), 4);
        assert_eq!(count("select count(*) from DerivationOutputs"), 1);
        assert_eq!(count("select sum(registrationTime) from ValidPaths"), 3 * 1234);
        assert_eq!(count("select count(*) from pragma_foreign_key_check"), 0);
        let mode: String = copied.query_row("pragma journal_mode", (), |r| r.get(0)).unwrap();
        assert_eq!(mode, "delete");
        assert_eq!(fs::read_to_string(target.join("schema")).unwrap(), "10");
        let mut names: Vec<_> =
            fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["db.sqlite", "schema"]);
    }

    /// What a view costs grows with its closure, not with the store.
    #[test]
    fn no_statement_goes_through_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let connection = beside(&dir.path().join("copy"), &store(dir.path())).unwrap();
        for statement in COPY {
            let mut plan = connection.prepare(&format!("explain query plan {statement}")).unwrap();
            let rows = plan.query_map((), |row| row.get::<_, String>("detail")).unwrap();
            let steps: Vec<_> = rows.map(Result::unwrap).collect();
            assert!(steps.iter().any(|step| step.starts_with("SEARCH s ")), "{steps:?}");
            assert!(!steps.iter().any(|step| step.starts_with("SCAN s")), "{steps:?}");
        }
    }

    #[test]
    fn a_closure_with_a_hole_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let database = store(dir.path());
        let closure = database.closure(&path('a', "x")).unwrap();
        Connection::open(database.file())
            .unwrap()
            .execute("delete from ValidPaths where id = 7", ())
            .unwrap();
        let error = write(&database, &closure, &dir.path().join("view")).unwrap_err();
        assert!(matches!(error, NixError::NotValid { .. }), "{error}");
    }
}
