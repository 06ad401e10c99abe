// SPDX-License-Identifier: Apache-2.0
//! What containers' logs miss.

use berth::{ids::ContainerId, log::Dropped};
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::error::{Context as _, Result};

/// What could not be written to a container's log; nothing of one that isn't
/// there.
///
/// # Errors
/// Those of the database.
pub fn dropped(db: &Connection, id: &ContainerId) -> Result<Dropped> {
    let text: Option<String> = db
        .prepare_cached("SELECT log_dropped FROM containers WHERE id = ?1")
        .and_then(|mut select| select.query_row([id.as_str()], |row| row.get(0)).optional())
        .context("read what a log misses")?;
    match text.as_deref() {
        None | Some("") => Ok(Dropped::default()),
        Some(text) => serde_json::from_str(text).context("decode what a log misses"),
    }
}

/// Adds that of a life that has ended.
///
/// # Errors
/// Those of the database.
pub fn add_dropped(tx: &Transaction<'_>, id: &ContainerId, more: &Dropped) -> Result<()> {
    let before = dropped(tx, id)?;
    let sum = Dropped {
        lines: before.lines.saturating_add(more.lines),
        bytes: before.bytes.saturating_add(more.bytes),
        ..*more
    };
    if sum == before {
        return Ok(());
    }
    let text = serde_json::to_string(&sum).context("encode what a log misses")?;
    tx.execute("UPDATE containers SET log_dropped = ?2 WHERE id = ?1", params![id.as_str(), text])
        .context("record what a log misses")
        .map(drop)
}
