// SPDX-License-Identifier: Apache-2.0
//! The engine itself: its id, and how much it holds.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use crate::error::{Context as _, Result};

/// How much a namespace holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// All containers.
    pub containers: u32,
    /// Those that run, paused ones apart.
    pub running: u32,
    /// Those that are paused.
    pub paused: u32,
    /// Images, however many names they have.
    pub images: u32,
}

/// The id that was chosen for this root, or `fresh` from now on.
///
/// # Errors
/// Those of the database.
pub fn id_or_insert(tx: &Transaction<'_>, fresh: &str) -> Result<String> {
    let known: Option<String> = tx
        .query_row("SELECT id FROM engine", (), |row| row.get(0))
        .optional()
        .context("read the engine's id")?;
    if let Some(id) = known {
        return Ok(id);
    }
    tx.execute("INSERT INTO engine (id) VALUES (?1)", [fresh]).context("record the engine's id")?;
    Ok(fresh.to_owned())
}

/// Counts what `namespace` holds.
///
/// # Errors
/// Those of the database.
pub fn counts(db: &Connection, namespace: &str) -> Result<Counts> {
    db.query_row(
        "SELECT (SELECT count(*) FROM containers WHERE namespace = ?1),
                (SELECT count(*) FROM containers WHERE namespace = ?1 AND status = 'running' AND NOT paused),
                (SELECT count(*) FROM containers WHERE namespace = ?1 AND paused),
                (SELECT count(DISTINCT image_id) FROM image_refs WHERE namespace = ?1)",
        [namespace],
        |row| {
            Ok(Counts {
                containers: row.get(0)?,
                running: row.get(1)?,
                paused: row.get(2)?,
                images: row.get(3)?,
            })
        },
    )
    .context("count containers and images")
}
