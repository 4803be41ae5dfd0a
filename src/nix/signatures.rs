//! What the store's database says of paths, for whoever checks their signatures.

use rusqlite::{Connection, OptionalExtension};

use super::NixError;
use super::db::Database;
use crate::model::{StorePath, Vouched};

const PATH: &str =
    "select id, hash, coalesce(narSize, 0), coalesce(sigs, '') from ValidPaths where path = ?1";
const REFERENCES: &str =
    "select v.path from Refs r join ValidPaths v on v.id = r.reference where r.referrer = ?1";

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

/// A hash in another form than Nix writes is one that no signature fits.
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
    let mut sha256 = [0; 32];
    let signatures = match hash.strip_prefix("sha256:") {
        Some(digits) if hex::decode_to_slice(digits, &mut sha256).is_ok() => {
            signatures.split_whitespace().map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    let nar_size = u64::try_from(nar_size).unwrap_or(0);
    Ok(Some(Vouched { path: path.clone(), sha256, nar_size, references, signatures }))
}
