// SPDX-License-Identifier: Apache-2.0
//! Statements about images and their references.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::error::{Context as _, Result};

/// An unpacked image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Digest of the configuration.
    pub id: String,
    /// Digest of the manifest.
    pub manifest_digest: String,
    /// Snapshot of the top layer; none for an image without layers.
    pub chain_id: Option<String>,
    /// Nanoseconds since the epoch; 0 when the image doesn't say.
    pub created_at: i64,
    /// Bytes of all unpacked layers.
    pub size: u64,
    /// The configuration, as it was pulled.
    pub config: String,
    /// When it was last of use; nanoseconds since the epoch.
    pub used_at: i64,
}

/// A name of an image in a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefRow {
    /// `docker.io/library/alpine:3`, `…@sha256:…`, or `<none>@<image id>`.
    pub name: String,
    /// The image it stands for.
    pub image_id: String,
    /// What the registry's tag stood for.
    pub target: String,
}

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// The container's id.
    pub id: String,
    /// Its namespace.
    pub namespace: String,
    /// The image as the user wrote it.
    pub image: String,
    /// Its status, as the schema spells it.
    pub status: String,
}

fn image(r: &rusqlite::Row<'_>) -> rusqlite::Result<ImageRow> {
    let size: i64 = r.get(4)?;
    Ok(ImageRow {
        id: r.get(0)?,
        manifest_digest: r.get(1)?,
        chain_id: r.get(2)?,
        created_at: r.get(3)?,
        size: u64::try_from(size).unwrap_or(0),
        config: r.get(5)?,
        used_at: r.get(6)?,
    })
}

fn reference(r: &rusqlite::Row<'_>) -> rusqlite::Result<RefRow> {
    Ok(RefRow { name: r.get(0)?, image_id: r.get(1)?, target: r.get(2)? })
}

/// Adds an image; the one with this id is of use again.
///
/// # Errors
/// Those of the database.
pub fn upsert(tx: &Transaction<'_>, new: &ImageRow) -> Result<()> {
    tx.execute(
        "INSERT INTO images (id, manifest_digest, chain_id, created_at, size, config, used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET used_at = excluded.used_at",
        params![
            new.id,
            new.manifest_digest,
            new.chain_id,
            new.created_at,
            i64::try_from(new.size).unwrap_or(i64::MAX),
            new.config,
            new.used_at,
        ],
    )
    .with_context(|| format!("record image {}", new.id))?;
    Ok(())
}

/// Notes that the image is of use now. An unknown one is fine.
///
/// # Errors
/// Those of the database.
pub fn touch(tx: &Transaction<'_>, id: &str) -> Result<()> {
    let now = i64::try_from(berth::bundle::now_nanos()).unwrap_or(i64::MAX);
    tx.prepare_cached("UPDATE images SET used_at = ?2 WHERE id = ?1")
        .and_then(|mut update| update.execute(params![id, now]))
        .with_context(|| format!("note the use of image {id}"))?;
    Ok(())
}

/// The image with this id.
///
/// # Errors
/// Those of the database.
pub fn get(c: &Connection, id: &str) -> Result<Option<ImageRow>> {
    c.prepare_cached(
        "SELECT id, manifest_digest, chain_id, created_at, size, config, used_at FROM images WHERE id = ?1",
    )
    .and_then(|mut select| select.query_row([id], image).optional())
    .with_context(|| format!("look up image {id}"))
}

/// Images that have a name in the namespace.
///
/// # Errors
/// Those of the database.
pub fn all(c: &Connection, namespace: &str) -> Result<Vec<ImageRow>> {
    c.prepare_cached(
        "SELECT id, manifest_digest, chain_id, created_at, size, config, used_at FROM images
         WHERE id IN (SELECT image_id FROM image_refs WHERE namespace = ?1)
         ORDER BY created_at DESC, id",
    )
    .and_then(|mut select| select.query_map([namespace], image)?.collect())
    .context("list images")
}

/// Ids in the namespace that begin with `prefix` (hex digits only: the caller
/// checked); two are enough to know that it is ambiguous.
///
/// # Errors
/// Those of the database.
pub fn by_prefix(c: &Connection, namespace: &str, prefix: &str) -> Result<Vec<String>> {
    c.prepare_cached(
        "SELECT DISTINCT image_id FROM image_refs
         WHERE namespace = ?1 AND substr(image_id, instr(image_id, ':') + 1, length(?2)) = ?2 LIMIT 2",
    )
    .and_then(|mut select| select.query_map([namespace, prefix], |r| r.get(0))?.collect())
    .context("look up an image by its id")
}

/// Takes the image's row away, and with it what it says of blobs.
///
/// # Errors
/// Those of the database.
pub fn delete(tx: &Transaction<'_>, id: &str) -> Result<()> {
    tx.execute("DELETE FROM images WHERE id = ?1", [id]).with_context(|| format!("forget image {id}"))?;
    Ok(())
}

/// What a name stands for.
///
/// # Errors
/// Those of the database.
pub fn get_ref(c: &Connection, namespace: &str, name: &str) -> Result<Option<RefRow>> {
    c.prepare_cached("SELECT name, image_id, target FROM image_refs WHERE namespace = ?1 AND name = ?2")
        .and_then(|mut select| select.query_row([namespace, name], reference).optional())
        .with_context(|| format!("look up {name}"))
}

/// All names in the namespace, in order.
///
/// # Errors
/// Those of the database.
pub fn refs(c: &Connection, namespace: &str) -> Result<Vec<RefRow>> {
    c.prepare_cached("SELECT name, image_id, target FROM image_refs WHERE namespace = ?1 ORDER BY name")
        .and_then(|mut select| select.query_map([namespace], reference)?.collect())
        .context("list image names")
}

/// The image's names in the namespace, in order.
///
/// # Errors
/// Those of the database.
pub fn refs_of(c: &Connection, namespace: &str, image_id: &str) -> Result<Vec<RefRow>> {
    c.prepare_cached(
        "SELECT name, image_id, target FROM image_refs WHERE namespace = ?1 AND image_id = ?2 ORDER BY name",
    )
    .and_then(|mut select| select.query_map([namespace, image_id], reference)?.collect())
    .with_context(|| format!("list the names of image {image_id}"))
}

/// How many names the image has in all namespaces.
///
/// # Errors
/// Those of the database.
pub fn count_refs(c: &Connection, image_id: &str) -> Result<u64> {
    let count: i64 = c
        .prepare_cached("SELECT count(*) FROM image_refs WHERE image_id = ?1")
        .and_then(|mut select| select.query_row([image_id], |r| r.get(0)))
        .with_context(|| format!("count the names of image {image_id}"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Gives an image a name, or moves it.
///
/// # Errors
/// Those of the database.
pub fn set_ref(tx: &Transaction<'_>, namespace: &str, new: &RefRow) -> Result<()> {
    tx.execute(
        "INSERT INTO image_refs (namespace, name, image_id, target, updated_at) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (namespace, name) DO UPDATE SET
           image_id = excluded.image_id, target = excluded.target, updated_at = excluded.updated_at",
        params![
            namespace,
            new.name,
            new.image_id,
            new.target,
            i64::try_from(berth::bundle::now_nanos()).unwrap_or(i64::MAX)
        ],
    )
    .with_context(|| format!("name image {}", new.name))?;
    Ok(())
}

/// Takes a name away.
///
/// # Errors
/// Those of the database.
pub fn delete_ref(tx: &Transaction<'_>, namespace: &str, name: &str) -> Result<()> {
    tx.execute("DELETE FROM image_refs WHERE namespace = ?1 AND name = ?2", [namespace, name])
        .with_context(|| format!("remove the name {name}"))?;
    Ok(())
}

/// Containers of any namespace that were made from the image.
///
/// # Errors
/// Those of the database.
pub fn users(c: &Connection, image_id: &str) -> Result<Vec<UserRow>> {
    c.prepare_cached(
        "SELECT id, namespace, image, status FROM containers WHERE image_id = ?1 ORDER BY created_at",
    )
    .and_then(|mut select| {
        select
            .query_map([image_id], |r| {
                Ok(UserRow { id: r.get(0)?, namespace: r.get(1)?, image: r.get(2)?, status: r.get(3)? })
            })?
            .collect()
    })
    .with_context(|| format!("list the containers of image {image_id}"))
}

/// Whether a container of any namespace was made from the image.
///
/// # Errors
/// Those of the database.
pub fn is_used(c: &Connection, image_id: &str) -> Result<bool> {
    c.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM containers WHERE image_id = ?1)
             OR EXISTS (SELECT 1 FROM image_mounts WHERE image_id = ?1)",
    )
    .and_then(|mut select| select.query_row([image_id], |r| r.get(0)))
    .with_context(|| format!("look for users of image {image_id}"))
}

/// Where the image is mounted.
///
/// # Errors
/// Those of the database.
pub fn mounted_at(c: &Connection, image_id: &str) -> Result<Option<String>> {
    c.prepare_cached("SELECT path FROM image_mounts WHERE image_id = ?1 ORDER BY path LIMIT 1")
        .and_then(|mut select| select.query_row([image_id], |r| r.get(0)).optional())
        .with_context(|| format!("look for mounts of image {image_id}"))
}

/// How many containers of the namespace were made from each image.
///
/// # Errors
/// Those of the database.
pub fn count_users(c: &Connection, namespace: &str) -> Result<std::collections::HashMap<String, u32>> {
    c.prepare_cached("SELECT image_id, count(*) FROM containers WHERE namespace = ?1 GROUP BY image_id")
        .and_then(|mut select| select.query_map([namespace], |r| Ok((r.get(0)?, r.get(1)?)))?.collect())
        .context("count the containers of images")
}

/// Bytes of each image's blobs.
///
/// # Errors
/// Those of the database.
pub fn content_sizes(c: &Connection) -> Result<std::collections::HashMap<String, u64>> {
    c.prepare_cached(
        "SELECT n.image_id, sum(b.size) FROM image_blobs n JOIN blobs b ON b.digest = n.digest
         GROUP BY n.image_id",
    )
    .and_then(|mut select| {
        select.query_map((), |r| Ok((r.get(0)?, r.get::<_, i64>(1)?.unsigned_abs())))?.collect()
    })
    .context("add up the blobs of images")
}

/// When the image got its newest name in the namespace; 0 without one.
///
/// # Errors
/// Those of the database.
pub fn tagged_at(c: &Connection, namespace: &str, image_id: &str) -> Result<i64> {
    c.prepare_cached(
        "SELECT coalesce(max(updated_at), 0) FROM image_refs WHERE namespace = ?1 AND image_id = ?2",
    )
    .and_then(|mut select| select.query_row([namespace, image_id], |r| r.get(0)))
    .with_context(|| format!("look up when image {image_id} was named"))
}

/// The images that the namespace wants kept.
///
/// # Errors
/// Those of the database.
pub fn pinned(c: &Connection, namespace: &str) -> Result<std::collections::HashSet<String>> {
    c.prepare_cached("SELECT image_id FROM image_pins WHERE namespace = ?1")
        .and_then(|mut select| select.query_map([namespace], |r| r.get(0))?.collect())
        .context("list the pinned images")
}

/// Whether any namespace wants the image kept.
///
/// # Errors
/// Those of the database.
pub fn is_pinned(c: &Connection, image_id: &str) -> Result<bool> {
    c.prepare_cached("SELECT EXISTS (SELECT 1 FROM image_pins WHERE image_id = ?1)")
        .and_then(|mut select| select.query_row([image_id], |r| r.get(0)))
        .with_context(|| format!("look up whether image {image_id} is pinned"))
}

/// Has the namespace want the image kept, or not.
///
/// # Errors
/// Those of the database.
pub fn pin(tx: &Transaction<'_>, namespace: &str, image_id: &str, keep: bool) -> Result<()> {
    let sql = if keep {
        "INSERT OR IGNORE INTO image_pins (namespace, image_id) VALUES (?1, ?2)"
    } else {
        "DELETE FROM image_pins WHERE namespace = ?1 AND image_id = ?2"
    };
    tx.execute(sql, [namespace, image_id]).with_context(|| format!("pin image {image_id}"))?;
    Ok(())
}

/// Images that no container, mount or pin keeps, and that were of no use since
/// `before` (nanoseconds since the epoch); the longest unused first.
///
/// # Errors
/// Those of the database.
pub fn unused_since(c: &Connection, before: i64) -> Result<Vec<ImageRow>> {
    c.prepare_cached(
        "SELECT id, manifest_digest, chain_id, created_at, size, config, used_at FROM images i
         WHERE used_at < ?1
         AND NOT EXISTS (SELECT 1 FROM containers WHERE image_id = i.id)
         AND NOT EXISTS (SELECT 1 FROM image_mounts WHERE image_id = i.id)
         AND NOT EXISTS (SELECT 1 FROM image_pins WHERE image_id = i.id)
         ORDER BY used_at, id",
    )
    .and_then(|mut select| select.query_map([before], image)?.collect())
    .context("find unused images")
}

/// Namespaces in which the image has a name.
///
/// # Errors
/// Those of the database.
pub fn namespaces(c: &Connection, image_id: &str) -> Result<Vec<String>> {
    c.prepare_cached("SELECT DISTINCT namespace FROM image_refs WHERE image_id = ?1 ORDER BY namespace")
        .and_then(|mut select| select.query_map([image_id], |r| r.get(0))?.collect())
        .with_context(|| format!("list the namespaces of image {image_id}"))
}
