// SPDX-License-Identifier: Apache-2.0
//! Statements that read whole tables, for the checker alone.

use rusqlite::{Connection, Params, Row};

use crate::error::{Context as _, Result};

/// An image and the top of its layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Digest of the configuration.
    pub id: String,
    /// Snapshot of the top layer; none for an image without layers.
    pub chain_id: Option<String>,
    /// It has a name in some namespace.
    pub named: bool,
}

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its name.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// Something an image is said to need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// The image.
    pub image: String,
    /// The blob.
    pub digest: String,
}

/// What happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happened {
    /// The event's place in the order of all.
    pub cursor: i64,
    /// The container.
    pub id: String,
    /// The event's word.
    pub action: String,
}

/// All images.
///
/// # Errors
/// Those of the database.
pub fn images(c: &Connection) -> Result<Vec<Image>> {
    let sql = "SELECT id, chain_id, EXISTS (SELECT 1 FROM image_refs WHERE image_id = images.id) FROM images";
    all(c, sql, (), |r| Ok(Image { id: r.get(0)?, chain_id: r.get(1)?, named: r.get(2)? }))
}

/// All blobs.
///
/// # Errors
/// Those of the database.
pub fn blobs(c: &Connection) -> Result<Vec<Blob>> {
    all(c, "SELECT digest, size FROM blobs", (), |r| {
        Ok(Blob { digest: r.get(0)?, size: r.get::<_, i64>(1)?.unsigned_abs() })
    })
}

/// Blobs that an image needs and that aren't there.
///
/// # Errors
/// Those of the database.
pub fn missing_blobs(c: &Connection) -> Result<Vec<Need>> {
    let sql = "SELECT image_id, digest FROM image_blobs n
               WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = n.digest)";
    all(c, sql, (), |r| Ok(Need { image: r.get(0)?, digest: r.get(1)? }))
}

/// What is still remembered of all containers' beginnings and ends, in order.
///
/// # Errors
/// Those of the database.
pub fn lives(c: &Connection) -> Result<Vec<Happened>> {
    let sql = "SELECT cursor, id, action FROM events WHERE type = 'container'
               AND action IN ('create', 'start', 'oom', 'die', 'destroy') ORDER BY cursor";
    all(c, sql, (), |r| Ok(Happened { cursor: r.get(0)?, id: r.get(1)?, action: r.get(2)? }))
}

fn all<T>(
    c: &Connection,
    sql: &str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>> {
    c.prepare(sql)
        .and_then(|mut select| select.query_map(params, read)?.collect())
        .context("read all of the metadata")
}
