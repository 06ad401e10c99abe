// SPDX-License-Identifier: Apache-2.0
//! Statements about archives that were loaded by themselves.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::error::{Context as _, Result};

/// An archive as it was when it was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its file.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i64,
    /// Ids of its images.
    pub images: Vec<String>,
}

/// What is known of the archive `path`.
///
/// # Errors
/// Those of the database.
pub fn get(c: &Connection, path: &str) -> Result<Option<Row>> {
    let row = c
        .prepare_cached("SELECT size, mtime, images FROM preloaded WHERE path = ?1")
        .and_then(|mut select| {
            let row = |r: &rusqlite::Row<'_>| {
                Ok((r.get::<_, i64>(0)?.unsigned_abs(), r.get(1)?, r.get::<_, String>(2)?))
            };
            select.query_row([path], row).optional()
        })
        .with_context(|| format!("look up the archive {path}"))?;
    let Some((size, mtime, images)) = row else { return Ok(None) };
    let images = serde_json::from_str(&images).with_context(|| format!("read what {path} held"))?;
    Ok(Some(Row { path: path.to_owned(), size, mtime, images }))
}

/// Remembers an archive.
///
/// # Errors
/// Those of the database.
pub fn set(tx: &Transaction<'_>, row: &Row) -> Result<()> {
    let images = serde_json::to_string(&row.images).context("record an archive")?;
    tx.execute(
        "INSERT OR REPLACE INTO preloaded (path, size, mtime, images) VALUES (?1, ?2, ?3, ?4)",
        params![row.path, i64::try_from(row.size).unwrap_or(i64::MAX), row.mtime, images],
    )
    .with_context(|| format!("record the archive {}", row.path))?;
    Ok(())
}

/// Ids of all images that came so.
///
/// # Errors
/// Those of the database.
pub fn images(c: &Connection) -> Result<std::collections::HashSet<String>> {
    c.prepare_cached("SELECT j.value FROM preloaded, json_each(preloaded.images) j")
        .and_then(|mut select| select.query_map((), |r| r.get(0))?.collect())
        .context("list the preloaded images")
}
