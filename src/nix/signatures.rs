//! What the store's database says of paths, for whoever checks their signatures.

use rusqlite::{Connection, OptionalExtension};

use super::NixError;
use super::db::Database;
use crate::model::{StorePath, Vouched};

const PATH: &str =
    "select id, hash, coalesce(narSize, 0), coalesce(sigs, '') from ValidPaths where path = ?1";
const REFERENCES: &str =
    "select v.path from Refs r join ValidPaths v on v.id = r.reference where r.referrer = ?1";
/// No path has a space in it.
const CLOSURE: &str = "
with recursive closure(id) as (
    select id from ValidPaths where path = ?1
    union
    select r.reference from closure c join Refs r on r.referrer = c.id
)
select v.path, v.hash, coalesce(v.narSize, 0), coalesce(v.sigs, ''), (
    select group_concat(o.path, ' ') from Refs r join ValidPaths o on o.id = r.reference
    where r.referrer = c.id
) from closure c join ValidPaths v on v.id = c.id";

impl Database {
    /// Of each of the paths, from one moment.
    pub(super) fn vouched(&self, paths: &[StorePath]) -> Result<Vec<Vouched>, NixError> {
        let rows = self.read("read signatures from", |connection| {
            let moment = connection.unchecked_transaction()?;
            paths.iter().map(|path| row(&moment, path)).collect::<Result<Vec<_>, _>>()
        })?;
        let not_valid = |path: &StorePath| NixError::NotValid { path: path.clone() };
        let rows = paths.iter().zip(rows);
        rows.map(|(path, row)| row.ok_or_else(|| not_valid(path))).collect()
    }

    /// Of all paths of a valid path's closure, by one query.
    pub(super) fn vouched_closure(&self, root: &StorePath) -> Result<Vec<Vouched>, NixError> {
        // It may be large, and mounts must not wait for it.
        let all = self.aside().read("read a closure from", |connection| {
            let mut statement = connection.prepare(CLOSURE)?;
            let mut rows = statement.query([root.to_string()])?;
            let mut all = Vec::new();
            while let Some(row) = rows.next()? {
                let [path, hash, signatures] = [0, 1, 3].map(|at| row.get::<_, String>(at));
                let references = row.get::<_, Option<String>>(4)?.unwrap_or_default();
                let references = references.split_whitespace();
                let references =
                    references.filter_map(|path| StorePath::parse(path).ok()).collect();
                // What is no store path is not left out: a caller looks at all of them.
                let path = StorePath::parse(&path?).map_err(|_| rusqlite::Error::InvalidQuery)?;
                all.push(vouched(path, &hash?, row.get(2)?, &signatures?, references));
            }
            Ok(all)
        })?;
        if all.is_empty() {
            return Err(NixError::NotValid { path: root.clone() });
        }
        Ok(all)
    }
}

impl Database {
    /// Whether a valid path is named by what is in it.
    pub(super) fn is_content_addressed(&self, path: &StorePath) -> Result<bool, NixError> {
        let row = self.read("ask for a path in", |connection| {
            connection
                .prepare_cached("select coalesce(ca, '') <> '' from ValidPaths where path = ?1")?
                .query_row([path.to_string()], |row| row.get(0))
                .optional()
        })?;
        Ok(row.unwrap_or(false))
    }

    /// Where an output of a valid derivation is or will be; `None`: that is known once it is built.
    pub(super) fn output_of(
        &self,
        derivation: &StorePath,
        output: &str,
    ) -> Result<Option<StorePath>, NixError> {
        let row: Option<String> = self.read("ask for an output in", |connection| {
            connection
                .prepare_cached(
                    "select o.path from DerivationOutputs o join ValidPaths v on v.id = o.drv \
                     where v.path = ?1 and o.id = ?2",
                )?
                .query_row([&derivation.to_string(), output], |row| row.get(0))
                .optional()
        })?;
        Ok(row.and_then(|path| StorePath::parse(&path).ok()))
    }
}

fn row(connection: &Connection, path: &StorePath) -> rusqlite::Result<Option<Vouched>> {
    let found = connection
        .prepare_cached(PATH)?
        .query_row([path.to_string()], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?))
        })
        .optional()?;
    let Some((id, hash, nar_size, signatures)): Option<(_, _, i64, String)> = found else {
        return Ok(None);
    };
    let mut references = Vec::new();
    let mut statement = connection.prepare_cached(REFERENCES)?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        references.extend(StorePath::parse(row.get_ref(0)?.as_str()?));
    }
    Ok(Some(vouched(path.clone(), &hash, nar_size, &signatures, references)))
}

/// A hash in another form than Nix writes is one that no signature fits.
fn vouched(
    path: StorePath,
    hash: &str,
    nar_size: i64,
    signatures: &str,
    references: Vec<StorePath>,
) -> Vouched {
    let mut sha256 = [0; 32];
    let signatures = match hash.strip_prefix("sha256:") {
        Some(digits) if hex::decode_to_slice(digits, &mut sha256).is_ok() => {
            signatures.split_whitespace().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    let nar_size = u64::try_from(nar_size).unwrap_or(0);
    Vouched { path, sha256, nar_size, references, signatures }
}
