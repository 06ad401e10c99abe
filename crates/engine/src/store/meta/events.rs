// SPDX-License-Identifier: Apache-2.0
//! Events, in the order in which they were committed.
//!
//! A cursor is never used twice: `AUTOINCREMENT` counts in a table of its own,
//! which trimming leaves alone. Who follows events is lifecycle's.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params, types::Type};

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

/// An event that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order; only grows.
    pub cursor: u64,
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// The tenant it belongs to.
    pub namespace: String,
    /// `container` or `image`.
    pub kind: String,
    /// What happened: `start`, `die`, `pull`, ….
    pub action: String,
    /// Id of the container or image.
    pub id: String,
    /// name, image, exitCode, … and the container's labels.
    pub attributes: BTreeMap<String, String>,
}

/// Which events are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Cursor of the oldest kept event; that of the next one when none is kept.
    pub oldest: u64,
    /// Cursor of the newest event there ever was; 0 before the first.
    pub newest: u64,
}

/// What was told of a process that has joined a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfExec {
    /// The event's place in the order of all.
    pub cursor: u64,
    /// The container.
    pub container: String,
    /// The process.
    pub exec: String,
    /// It was told to have ended; else, to have started.
    pub ended: bool,
}

/// Appends an event; it becomes visible with the change that caused it.
///
/// # Errors
/// Those of the database.
pub fn append(tx: &Transaction<'_>, event: &NewEvent) -> Result<()> {
    let attributes = serde_json::to_string(&event.attributes).context("encode an event")?;
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
            attributes,
        ])
    })
    .context("append an event")?;
    Ok(())
}

/// Which events are kept.
///
/// # Errors
/// Those of the database.
pub fn bounds(db: &Connection) -> Result<Bounds> {
    let newest: Option<i64> = db
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        .and_then(|mut select| select.query_row((), |row| row.get(0)).optional())
        .context("read the newest event's cursor")?;
    let newest = newest.map_or(0, unsigned);
    let oldest: Option<i64> = db
        .prepare_cached("SELECT min(cursor) FROM events")
        .and_then(|mut select| select.query_row((), |row| row.get(0)))
        .context("read the oldest event's cursor")?;
    Ok(Bounds { oldest: oldest.map_or(newest + 1, unsigned), newest })
}

/// The cursor just before the first event at or after `time` (nanoseconds
/// since the Unix epoch); that of the newest event when there is none.
///
/// # Errors
/// Those of the database.
pub fn before_time(db: &Connection, time: u64) -> Result<u64> {
    let first: Option<i64> = db
        .prepare_cached("SELECT min(cursor) FROM events WHERE time >= ?1")
        .and_then(|mut select| select.query_row([signed(time)], |row| row.get(0)))
        .context("look an event up by its time")?;
    match first {
        Some(first) => Ok(unsigned(first) - 1),
        None => Ok(bounds(db)?.newest),
    }
}

/// At most `limit` events after `cursor`, in order.
///
/// # Errors
/// Those of the database.
pub fn after(db: &Connection, cursor: u64, limit: usize) -> Result<Vec<Event>> {
    db.prepare_cached(
        "SELECT cursor, time, namespace, type, action, id, attributes FROM events \
         WHERE cursor > ?1 ORDER BY cursor LIMIT ?2",
    )
    .and_then(|mut select| {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        select.query_map([signed(cursor), limit], event)?.collect()
    })
    .context("read events")
}

/// All events from this time on are kept, in nanoseconds since the Unix epoch.
///
/// # Errors
/// Those of the database.
pub fn kept_since(db: &Connection) -> Result<u64> {
    let bounds = bounds(db)?;
    if bounds.oldest == 1 {
        return Ok(0);
    }
    let oldest: Option<i64> = db
        .prepare_cached("SELECT time FROM events WHERE cursor = ?1")
        .and_then(|mut select| select.query_row([signed(bounds.oldest)], |row| row.get(0)).optional())
        .context("read the oldest event's time")?;
    Ok(oldest.map_or(u64::MAX, unsigned))
}

/// Goes through every `exec_start` and `exec_die` of containers that are still
/// there, in order. Reads all events, and holds one: there may be many.
///
/// # Errors
/// Those of the database.
pub fn of_execs(db: &Connection, mut each: impl FnMut(OfExec)) -> Result<()> {
    db.prepare_cached(
        "SELECT cursor, id, json_extract(attributes, '$.execID') AS exec, action = 'exec_die' FROM events \
         WHERE action IN ('exec_start', 'exec_die') AND exec IS NOT NULL \
         AND id IN (SELECT id FROM containers) ORDER BY cursor",
    )
    .and_then(|mut select| {
        let mut rows = select.query(())?;
        while let Some(row) = rows.next()? {
            each(OfExec {
                cursor: unsigned(row.get(0)?),
                container: row.get(1)?,
                exec: row.get(2)?,
                ended: row.get(3)?,
            });
        }
        Ok(())
    })
    .context("read events of execs")
}

/// Forgets all but the newest `retain` events.
///
/// # Errors
/// Those of the database.
pub fn trim(tx: &Transaction<'_>, retain: u32) -> Result<usize> {
    tx.execute("DELETE FROM events WHERE cursor <= (SELECT max(cursor) FROM events) - ?1", [retain])
        .context("trim events")
}

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    let attributes = row.get_ref(6)?.as_str()?;
    Ok(Event {
        cursor: unsigned(row.get(0)?),
        time: unsigned(row.get(1)?),
        namespace: row.get(2)?,
        kind: row.get(3)?,
        action: row.get(4)?,
        id: row.get(5)?,
        attributes: serde_json::from_str(attributes)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(6, Type::Text, e.into()))?,
    })
}

/// Cursors and times are never negative; SQLite knows only signed numbers.
fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
