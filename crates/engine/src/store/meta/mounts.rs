// SPDX-License-Identifier: Apache-2.0
//! Statements about images that are mounted on the host.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::snapshots::ABOVE;
use crate::error::{Context as _, Result};

/// A mounted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where; absolute, without links.
    pub path: String,
    /// Who asked for it.
    pub namespace: String,
    /// The image.
    pub image_id: String,
}

fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    Ok(Row { path: r.get(0)?, namespace: r.get(1)?, image_id: r.get(2)? })
}

/// Records a mount that is about to be made, in this boot.
///
/// # Errors
/// Those of the database, a path in use among them.
pub fn insert(tx: &Transaction<'_>, new: &Row, boot: &str) -> Result<()> {
    let now = i64::try_from(berth::bundle::now_nanos()).unwrap_or(i64::MAX);
    tx.execute(
        "INSERT INTO image_mounts (path, namespace, image_id, boot, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![new.path, new.namespace, new.image_id, boot, now],
    )
    .with_context(|| format!("record the mount at {}", new.path))?;
    Ok(())
}

/// What is mounted at `path`.
///
/// # Errors
/// Those of the database.
pub fn get(c: &Connection, path: &str) -> Result<Option<Row>> {
    c.prepare_cached("SELECT path, namespace, image_id FROM image_mounts WHERE path = ?1")
        .and_then(|mut select| select.query_row([path], row).optional())
        .with_context(|| format!("look up the mount at {path}"))
}

/// All mounts, by path.
///
/// # Errors
/// Those of the database.
pub fn all(c: &Connection) -> Result<Vec<Row>> {
    c.prepare_cached("SELECT path, namespace, image_id FROM image_mounts ORDER BY path")
        .and_then(|mut select| select.query_map((), row)?.collect())
        .context("list the mounted images")
}

/// Where an image is mounted whose files are, among others, those of the layer
/// `key`.
///
/// # Errors
/// Those of the database.
pub fn on(c: &Connection, key: &str) -> Result<Option<String>> {
    c.prepare_cached(&format!(
        "{ABOVE} SELECT m.path FROM image_mounts m JOIN images i ON i.id = m.image_id
         JOIN above ON i.chain_id = above.key ORDER BY m.path LIMIT 1"
    ))
    .and_then(|mut select| select.query_row([key], |r| r.get(0)).optional())
    .with_context(|| format!("look for mounts of {key}"))
}

/// Forgets a mount.
///
/// # Errors
/// Those of the database.
pub fn delete(tx: &Transaction<'_>, path: &str) -> Result<()> {
    tx.execute("DELETE FROM image_mounts WHERE path = ?1", [path])
        .with_context(|| format!("forget the mount at {path}"))?;
    Ok(())
}
