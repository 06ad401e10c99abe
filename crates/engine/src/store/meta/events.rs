// SPDX-License-Identifier: Apache-2.0
//! Events, in the order in which they were committed.

use std::collections::BTreeMap;

use rusqlite::{Transaction, params};

use crate::error::{Context as _, Result};

/// An event before it has a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The tenant it belongs to.
    pub namespace: String,
    /// `container` or `image`.
    pub kind: &'static str,
    /// What happened: `start`, `die`, `pull`, ….
    pub action: &'static str,
    /// Id of the container or image.
    pub id: String,
    /// name, image, exitCode, … and the container's labels.
    pub attributes: BTreeMap<String, String>,
}

/// Appends an event; it becomes visible with the change that caused it.
///
/// # Errors
/// Those of the database.
pub fn append(tx: &Transaction<'_>, event: &NewEvent) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO events (time, namespace, type, action, id, attributes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .and_then(|mut insert| {
        insert.execute(params![
            i64::try_from(berth::bundle::now_nanos()).unwrap_or(i64::MAX),
            event.namespace,
            event.kind,
            event.action,
            event.id,
            serde_json::to_string(&event.attributes).unwrap_or_default(),
        ])
    })
    .context("append an event")?;
    Ok(())
}
