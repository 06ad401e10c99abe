// SPDX-License-Identifier: Apache-2.0
//! Statements about containers' health. What it means is `domain::health`'s.

use berth::ids::ContainerId;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use crate::{
    domain::health::{State, Status},
    error::{Context as _, Result},
};

/// What is remembered of a container; `None` of one without a check.
///
/// # Errors
/// Those of the database.
pub fn get(db: &Connection, id: &ContainerId) -> Result<Option<State>> {
    let found: Option<(String, Option<u32>, Option<String>)> = db
        .prepare_cached(
            "SELECT c.health, h.streak, h.log FROM containers c LEFT JOIN health h ON h.id = c.id WHERE c.id = ?1",
        )
        .and_then(|mut select| {
            select.query_row([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()
        })
        .context("read a container's health")?;
    let Some((word, streak, log)) = found else { return Ok(None) };
    let Some(status) = Status::of_word(&word) else { return Ok(None) };
    let log = log.map_or(Ok(Default::default()), |log| serde_json::from_str(&log));
    Ok(Some(State { status, streak: streak.unwrap_or(0), log: log.context("decode a container's health")? }))
}

/// Forgets what is known: of one that has a check now, `is_checked`, nothing
/// is yet.
///
/// # Errors
/// Those of the database.
pub fn forget(tx: &Transaction<'_>, id: &ContainerId, is_checked: bool) -> Result<()> {
    let word = if is_checked { Status::Starting.as_str() } else { "" };
    tx.execute("UPDATE containers SET health = ?2 WHERE id = ?1", params![id.as_str(), word])
        .and_then(|_| tx.execute("DELETE FROM health WHERE id = ?1", params![id.as_str()]))
        .context("forget a container's health")
        .map(drop)
}

/// Remembers what a probe has come to.
///
/// # Errors
/// Those of the database.
pub fn set(tx: &Transaction<'_>, id: &ContainerId, state: &State) -> Result<()> {
    let log = serde_json::to_string(&state.log).context("encode a container's health")?;
    tx.execute("UPDATE containers SET health = ?2 WHERE id = ?1", params![id.as_str(), state.status.as_str()])
        .and_then(|_| {
            tx.execute(
                "INSERT OR REPLACE INTO health (id, streak, log) VALUES (?1, ?2, ?3)",
                params![id.as_str(), state.streak, log],
            )
        })
        .context("record a container's health")
        .map(drop)
}
