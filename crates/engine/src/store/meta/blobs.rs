// SPDX-License-Identifier: Apache-2.0
//! Statements about blobs: which there are, and which images need them.

use rusqlite::{Connection, Transaction, params};

use crate::error::{Context as _, Result};

/// Records a blob that is durably in the content store.
///
/// # Errors
/// Those of the database.
pub fn upsert(tx: &Transaction<'_>, digest: &str, size: u64) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO blobs (digest, size, created_at) VALUES (?1, ?2, ?3)")
        .and_then(|mut insert| {
            insert.execute(params![
                digest,
                i64::try_from(size).unwrap_or(i64::MAX),
                i64::try_from(berth::bundle::now_nanos()).unwrap_or(i64::MAX),
            ])
        })
        .with_context(|| format!("record blob {digest}"))?;
    Ok(())
}

/// Records that an image needs a blob.
///
/// # Errors
/// Those of the database.
pub fn link(tx: &Transaction<'_>, image_id: &str, digest: &str) -> Result<()> {
    tx.prepare_cached("INSERT OR IGNORE INTO image_blobs (image_id, digest) VALUES (?1, ?2)")
        .and_then(|mut insert| insert.execute(params![image_id, digest]))
        .with_context(|| format!("record that image {image_id} needs {digest}"))?;
    Ok(())
}

/// The digests of all recorded blobs.
///
/// # Errors
/// Those of the database.
pub fn all(c: &Connection) -> Result<Vec<String>> {
    c.prepare("SELECT digest FROM blobs")
        .and_then(|mut select| select.query_map((), |r| r.get(0))?.collect())
        .context("list blobs")
}

/// Whether a blob is recorded.
///
/// # Errors
/// Those of the database.
pub fn is_known(c: &Connection, digest: &str) -> Result<bool> {
    c.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")
        .and_then(|mut select| select.exists([digest]))
        .with_context(|| format!("look up blob {digest}"))
}

/// Blobs that no image needs.
///
/// # Errors
/// Those of the database.
pub fn unused(c: &Connection) -> Result<Vec<String>> {
    c.prepare_cached(
        "SELECT digest FROM blobs b
         WHERE NOT EXISTS (SELECT 1 FROM image_blobs i WHERE i.digest = b.digest)",
    )
    .and_then(|mut select| select.query_map((), |r| r.get(0))?.collect())
    .context("find unused blobs")
}

/// The recorded blobs of an image, and their sizes.
///
/// # Errors
/// Those of the database.
pub fn of_image(c: &Connection, image_id: &str) -> Result<Vec<(String, u64)>> {
    let row = |r: &rusqlite::Row<'_>| Ok((r.get(0)?, u64::try_from(r.get::<_, i64>(1)?).unwrap_or(0)));
    c.prepare_cached(
        "SELECT b.digest, b.size FROM blobs b JOIN image_blobs i ON i.digest = b.digest WHERE i.image_id = ?1",
    )
    .and_then(|mut select| select.query_map([image_id], row)?.collect())
    .with_context(|| format!("list the blobs of image {image_id}"))
}

/// Names in the namespace of images that have the blob.
///
/// # Errors
/// Those of the database.
pub fn users(c: &Connection, namespace: &str, digest: &str) -> Result<Vec<String>> {
    c.prepare_cached(
        "SELECT r.name FROM image_refs r JOIN image_blobs b ON b.image_id = r.image_id
         WHERE r.namespace = ?1 AND b.digest = ?2 ORDER BY r.name",
    )
    .and_then(|mut select| select.query_map([namespace, digest], |r| r.get(0))?.collect())
    .with_context(|| format!("find the users of blob {digest}"))
}

/// Forgets a blob, unless an image needs it. Whether it did.
///
/// # Errors
/// Those of the database.
pub fn delete_unused(tx: &Transaction<'_>, digest: &str) -> Result<bool> {
    let deleted = tx
        .prepare_cached(
            "DELETE FROM blobs WHERE digest = ?1
             AND NOT EXISTS (SELECT 1 FROM image_blobs i WHERE i.digest = ?1)",
        )
        .and_then(|mut delete| delete.execute([digest]))
        .with_context(|| format!("forget blob {digest}"))?;
    Ok(deleted > 0)
}
