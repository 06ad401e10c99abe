// SPDX-License-Identifier: Apache-2.0
//! Statements about snapshots. What they mean is `store::snapshot`'s.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::error::{Context as _, Result};

/// A layer being unpacked.
pub const PREPARING: &str = "preparing";
/// A finished layer.
pub const COMMITTED: &str = "committed";
/// A container's writable layer.
pub const ACTIVE: &str = "active";

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The directory's number.
    pub dir: i64,
    /// A chain id or a container's id.
    pub key: String,
    /// The key of the one below.
    pub parent: Option<String>,
    /// [`PREPARING`], [`COMMITTED`] or [`ACTIVE`].
    pub kind: String,
    /// Bytes, of a committed one.
    pub size: u64,
}

fn row(r: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let size: i64 = r.get(4)?;
    Ok(Row {
        dir: r.get(0)?,
        key: r.get(1)?,
        parent: r.get(2)?,
        kind: r.get(3)?,
        size: u64::try_from(size).unwrap_or(0),
    })
}

/// Adds a snapshot.
///
/// # Errors
/// Those of the database, a key in use among them.
pub fn insert(tx: &Transaction<'_>, new: &Row) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO snapshots (dir, key, parent, kind, size, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            new.dir,
            new.key,
            new.parent,
            new.kind,
            i64::try_from(new.size).unwrap_or(i64::MAX),
            i64::try_from(berth::bundle::now_nanos()).unwrap_or(i64::MAX),
        ])
    })
    .with_context(|| format!("record snapshot {}", new.key))?;
    Ok(())
}

/// Turns the layer in `dir` from preparing into committed.
///
/// # Errors
/// Those of the database, a key in use among them.
pub fn commit(tx: &Transaction<'_>, dir: i64, key: &str, parent: Option<&str>, size: u64) -> Result<()> {
    tx.execute(
        "UPDATE snapshots SET key = ?2, parent = ?3, kind = 'committed', size = ?4
         WHERE dir = ?1 AND kind = 'preparing'",
        params![dir, key, parent, i64::try_from(size).unwrap_or(i64::MAX)],
    )
    .with_context(|| format!("commit snapshot {key}"))?;
    Ok(())
}

/// The snapshot with this key.
///
/// # Errors
/// Those of the database.
pub fn get(c: &Connection, key: &str) -> Result<Option<Row>> {
    c.prepare_cached("SELECT dir, key, parent, kind, size FROM snapshots WHERE key = ?1")
        .and_then(|mut select| select.query_row([key], row).optional())
        .with_context(|| format!("look up snapshot {key}"))
}

/// The snapshot with this key and all below it, the top first.
///
/// # Errors
/// Those of the database.
pub fn chain(c: &Connection, key: &str) -> Result<Vec<Row>> {
    c.prepare_cached(
        "WITH RECURSIVE chain (depth, dir, key, parent, kind, size) AS (
           SELECT 0, dir, key, parent, kind, size FROM snapshots WHERE key = ?1
           UNION ALL
           SELECT depth + 1, s.dir, s.key, s.parent, s.kind, s.size
           FROM snapshots s JOIN chain ON s.key = chain.parent WHERE depth < 1000)
         SELECT dir, key, parent, kind, size FROM chain ORDER BY depth",
    )
    .and_then(|mut select| select.query_map([key], row)?.collect())
    .with_context(|| format!("list the layers of {key}"))
}

/// A layer and all that stands on it: `above (key)`, of the key `?1`.
pub(super) const ABOVE: &str = "WITH RECURSIVE above (key) AS (
    SELECT ?1 UNION SELECT s.key FROM snapshots s JOIN above ON s.parent = above.key)";

/// A container that runs on the layer with this key, if any does.
///
/// # Errors
/// Those of the database.
pub fn running_on(c: &Connection, key: &str) -> Result<Option<String>> {
    c.prepare_cached(&format!(
        "{ABOVE} SELECT c.id FROM containers c JOIN above ON c.id = above.key
         WHERE c.status IN ('starting', 'running') LIMIT 1"
    ))
    .and_then(|mut select| select.query_row([key], |r| r.get(0)).optional())
    .with_context(|| format!("look for who runs on {key}"))
}

/// All snapshots.
///
/// # Errors
/// Those of the database.
pub fn all(c: &Connection) -> Result<Vec<Row>> {
    c.prepare("SELECT dir, key, parent, kind, size FROM snapshots")
        .and_then(|mut select| select.query_map((), row)?.collect())
        .context("list snapshots")
}

/// Layers that no snapshot stands on and no image ends with.
///
/// # Errors
/// Those of the database.
pub fn unused(c: &Connection) -> Result<Vec<Row>> {
    c.prepare_cached(
        "SELECT dir, key, parent, kind, size FROM snapshots s WHERE kind = 'committed'
         AND NOT EXISTS (SELECT 1 FROM snapshots child WHERE child.parent = s.key)
         AND NOT EXISTS (SELECT 1 FROM images WHERE chain_id = s.key)",
    )
    .and_then(|mut select| select.query_map((), row)?.collect())
    .context("find unused layers")
}

/// Forgets a layer, unless something has come to stand on it. Whether it did.
///
/// # Errors
/// Those of the database.
pub fn delete_unused(tx: &Transaction<'_>, dir: i64) -> Result<bool> {
    let deleted = tx
        .prepare_cached(
            "DELETE FROM snapshots WHERE dir = ?1 AND kind = 'committed'
             AND NOT EXISTS (SELECT 1 FROM snapshots child WHERE child.parent = snapshots.key)
             AND NOT EXISTS (SELECT 1 FROM images WHERE chain_id = snapshots.key)",
        )
        .and_then(|mut delete| delete.execute([dir]))
        .with_context(|| format!("forget layer {dir}"))?;
    Ok(deleted > 0)
}

/// Forgets a snapshot.
///
/// # Errors
/// Those of the database.
pub fn delete(tx: &Transaction<'_>, dir: i64) -> Result<()> {
    tx.prepare_cached("DELETE FROM snapshots WHERE dir = ?1")
        .and_then(|mut delete| delete.execute([dir]))
        .with_context(|| format!("forget snapshot {dir}"))?;
    Ok(())
}
