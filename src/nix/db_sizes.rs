//! How much the store holds, by its database. Mounts must not wait for it: ask [`Database::aside`].

use super::db::Database;
use super::{NixError, Stock};

const OUTPUTS: &str = "
select v.path, v.narSize from ValidPaths d join DerivationOutputs o on o.drv = d.id
join ValidPaths v on v.path = o.path where d.path = ?1";

impl Database {
    /// Those of `paths` that are valid, with their NAR sizes.
    pub(super) fn sizes(&self, paths: &[String]) -> Result<Vec<(String, u64)>, NixError> {
        self.sizes_by("select path, narSize from ValidPaths where path = ?1", paths)
    }

    /// The valid outputs of derivations, with their NAR sizes. Those of floating content-addressed ones are not
    /// known by their derivations.
    pub(super) fn output_sizes(
        &self,
        derivations: &[String],
    ) -> Result<Vec<(String, u64)>, NixError> {
        self.sizes_by(OUTPUTS, derivations)
    }

    fn sizes_by(&self, query: &str, of: &[String]) -> Result<Vec<(String, u64)>, NixError> {
        self.read("ask for sizes in", |connection| {
            let mut query = connection.prepare_cached(query)?;
            let mut sizes = Vec::new();
            for one in of {
                let mut rows = query.query([one])?;
                while let Some(row) = rows.next()? {
                    let size = row.get::<_, Option<i64>>(1)?.unwrap_or(0);
                    sizes.push((row.get(0)?, u64::try_from(size).unwrap_or(0)));
                }
            }
            Ok(sizes)
        })
    }

    /// How many paths are valid, and their bytes as archives.
    pub(super) fn stock(&self) -> Result<Stock, NixError> {
        self.read("count all of", |connection| {
            let all = "select count(*), coalesce(sum(narSize), 0) from ValidPaths";
            connection.query_row(all, [], |row| {
                let [paths, bytes] = [row.get::<_, i64>(0)?, row.get(1)?];
                let count = |n| u64::try_from(n).unwrap_or(0);
                Ok(Stock { paths: count(paths), bytes: count(bytes) })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::nix::db::tests::{path, store};

    #[test]
    fn sizes_of_what_is_valid_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let database = store(dir.path());
        let name = |letter, name| path(letter, name).to_string();
        let paths = [name('a', "x"), name('a', "y"), name('c', "x")];
        let found = database.sizes(&paths).unwrap();
        assert_eq!(found, [(paths[0].clone(), 70), (paths[2].clone(), 10)]);
        assert_eq!(database.output_sizes(&paths).unwrap(), [], "its output is not valid");
        let connection = Connection::open(database.file()).unwrap();
        let output = "update DerivationOutputs set path = ?1";
        connection.execute(output, [name('b', "x")]).unwrap();
        assert_eq!(database.output_sizes(&paths).unwrap(), [(name('b', "x"), 20)]);
        assert_eq!(database.stock().unwrap(), Stock { paths: 4, bytes: 190 });
    }
}
