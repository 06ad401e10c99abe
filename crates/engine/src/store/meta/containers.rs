// SPDX-License-Identifier: Apache-2.0
//! The containers' statements. What they mean is lifecycle's.

use berth::{
    bundle::ProcessIdentity,
    ids::{ContainerId, Namespace},
};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, Transaction, params};

use crate::{
    domain::{
        container::Document,
        health,
        record::Record,
        restart::{Restarts, Wanted},
        state::{Exit, Status},
        users::IdMap,
    },
    error::{Context as _, Error, Kind, Result},
};

const COLUMNS: &str = "namespace, id, name, created_at, image, image_id, summary, status, pid, exit_code, \
                       oom_killed, error, started_at, finished_at, shim, paused, wanted, restart_count, \
                       restart_waited, restart_due, health";

/// Adds a container.
///
/// # Errors
/// Those of the database; a name in use has been looked for before.
pub fn insert(tx: &Transaction<'_>, record: &Record, document: &Document) -> Result<()> {
    let summary = serde_json::to_string(&record.summary).context("encode a container's summary")?;
    let document = serde_json::to_string(document).context("encode a container's configuration")?;
    execute(
        tx,
        "INSERT INTO containers (namespace, id, name, created_at, image, image_id, summary, document, status) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            record.namespace.as_str(),
            record.id.as_str(),
            record.name,
            time(record.created_at),
            record.image,
            record.image_id,
            summary,
            document,
            record.status.as_str(),
        ],
    )
    .map(drop)
}

/// The ids on the host that containers have, in all namespaces.
///
/// # Errors
/// Those of the database.
pub fn id_maps(db: &Connection) -> Result<Vec<IdMap>> {
    let sql =
        "SELECT json_extract(document, '$.effective.id_maps') AS maps FROM containers WHERE maps IS NOT NULL";
    let mut statement = db.prepare(sql).context("list users of containers")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).context("list users of containers")?;
    let mut all = Vec::new();
    for text in rows {
        let text = text.context("list users of containers")?;
        let maps: Vec<IdMap> = serde_json::from_str(&text).context("decode users of a container")?;
        all.extend(maps);
    }
    Ok(all)
}

/// The container with this id.
///
/// # Errors
/// Those of the database.
pub fn get(db: &Connection, namespace: &Namespace, id: &str) -> Result<Option<Record>> {
    one(db, "namespace = ?1 AND id = ?2", params![namespace.as_str(), id])
}

/// The container with this id, in whatever namespace.
///
/// # Errors
/// Those of the database.
pub fn any(db: &Connection, id: &ContainerId) -> Result<Option<Record>> {
    one(db, "id = ?1", params![id.as_str()])
}

/// Namespace and id of every container.
///
/// # Errors
/// Those of the database.
pub fn identities(db: &Connection) -> Result<Vec<(String, String)>> {
    let mut select = db.prepare_cached("SELECT namespace, id FROM containers").context("list containers")?;
    let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).context("list containers")?;
    rows.collect::<rusqlite::Result<_>>().context("list containers")
}

/// The container with this name.
///
/// # Errors
/// Those of the database.
pub fn by_name(db: &Connection, namespace: &Namespace, name: &str) -> Result<Option<Record>> {
    one(db, "namespace = ?1 AND name = ?2", params![namespace.as_str(), name])
}

/// At most two of the containers whose ids begin with `prefix`.
///
/// # Errors
/// Those of the database.
pub fn by_prefix(db: &Connection, namespace: &Namespace, prefix: &str) -> Result<Vec<Record>> {
    // A range, so that the primary key serves it. Ids are ASCII: '\x7f' ends it.
    let condition = "namespace = ?1 AND id >= ?2 AND id < ?3 LIMIT 2";
    many(db, condition, params![namespace.as_str(), prefix, format!("{prefix}\x7f")])
}

/// Which containers a list is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All that were made.
    All,
    /// Those that run, or are about to by their policy.
    Running,
}

/// The containers of a namespace, newest first.
///
/// # Errors
/// Those of the database.
pub fn list(db: &Connection, namespace: &Namespace, scope: Scope) -> Result<Vec<Record>> {
    let condition = match scope {
        Scope::All => "namespace = ?1 AND status <> 'creating' ORDER BY created_at DESC, id",
        Scope::Running => {
            "namespace = ?1 AND (status = 'running' OR restart_due > 0) ORDER BY created_at DESC, id"
        }
    };
    many(db, condition, params![namespace.as_str()])
}

/// Every container, in any namespace.
///
/// # Errors
/// Those of the database.
pub fn every(db: &Connection) -> Result<Vec<Record>> {
    many(db, "true ORDER BY id", ())
}

/// Every container, in any namespace, that the engine's start has to look at:
/// all but those at rest.
///
/// # Errors
/// Those of the database.
pub fn unsettled(db: &Connection) -> Result<Vec<Record>> {
    many(
        db,
        "status IN ('creating', 'starting', 'running', 'removing') \
         OR shim IS NOT NULL OR (status = 'exited' AND (json_extract(summary, '$.auto_remove') \
         OR json_extract(summary, '$.restart') IS NOT NULL))",
        (),
    )
}

/// Those at rest whose logs go elsewhere, in any namespace.
///
/// # Errors
/// Those of the database.
pub fn forwarded(db: &Connection) -> Result<Vec<Record>> {
    many(
        db,
        "status = 'exited' AND json_extract(document, '$.config.host.log.driver') IN ('journald', 'syslog')",
        (),
    )
}

/// Everything that was asked for and is in force.
///
/// # Errors
/// Those of the database.
pub fn document(db: &Connection, id: &ContainerId) -> Result<Document> {
    let text: String = db
        .prepare_cached("SELECT document FROM containers WHERE id = ?1")
        .and_then(|mut select| select.query_row([id.as_str()], |row| row.get(0)))
        .context("read a container's configuration")?;
    serde_json::from_str(&text)
        .map_err(|e| Error::new(Kind::DataLoss, format!("decode the configuration of {id}")).with_source(e))
}

/// Records another configuration, and what lists show of it.
///
/// # Errors
/// Those of the database.
pub fn set_document(tx: &Transaction<'_>, id: &ContainerId, document: &Document) -> Result<()> {
    let summary = serde_json::to_string(&document.summary()).context("encode a container's summary")?;
    let document = serde_json::to_string(document).context("encode a container's configuration")?;
    let sql = "UPDATE containers SET document = ?2, summary = ?3 WHERE id = ?1";
    execute(tx, sql, params![id.as_str(), document, summary]).map(drop)
}

/// Bytes of the container's image.
///
/// # Errors
/// Those of the database.
pub fn image_size(db: &Connection, image_id: &str) -> Result<u64> {
    let size: Option<i64> = db
        .prepare_cached("SELECT size FROM images WHERE id = ?1")
        .and_then(|mut select| select.query_row([image_id], |row| row.get(0)).optional())
        .context("read an image's size")?;
    Ok(size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0))
}

/// Moves a container from one of `from` to `to`; false when it is elsewhere.
///
/// # Errors
/// Those of the database.
pub fn transit(tx: &Transaction<'_>, id: &ContainerId, from: &[Status], to: Status) -> Result<bool> {
    let from: Vec<_> = from.iter().map(|status| format!("'{status}'")).collect();
    let sql = format!("UPDATE containers SET status = ?2 WHERE id = ?1 AND status IN ({})", from.join(", "));
    execute(tx, &sql, params![id.as_str(), to.as_str()]).map(|rows| rows == 1)
}

/// Records the shim that was started for a container.
///
/// # Errors
/// Those of the database.
pub fn set_shim(tx: &Transaction<'_>, id: &ContainerId, shim: Option<&ProcessIdentity>) -> Result<()> {
    let shim = shim.map(serde_json::to_string).transpose().context("encode a shim's identity")?;
    execute(tx, "UPDATE containers SET shim = ?2 WHERE id = ?1", params![id.as_str(), shim]).map(drop)
}

/// Records that the first process runs.
///
/// # Errors
/// Those of the database.
pub fn set_running(tx: &Transaction<'_>, id: &ContainerId, pid: u32, at: u64) -> Result<()> {
    execute(
        tx,
        "UPDATE containers SET status = 'running', pid = ?2, started_at = ?3, exit_code = 0, oom_killed = 0, \
         error = '', finished_at = 0, paused = 0, restart_due = 0, \
         health = iif(json_extract(summary, '$.health'), 'starting', '') WHERE id = ?1",
        params![id.as_str(), pid, time(at)],
    )?;
    // Nothing of the last run.
    execute(tx, "DELETE FROM health WHERE id = ?1", params![id.as_str()]).map(drop)
}

/// Records whether a running container is paused; false when it doesn't run.
///
/// # Errors
/// Those of the database.
pub fn set_paused(tx: &Transaction<'_>, id: &ContainerId, paused: bool) -> Result<bool> {
    let sql = "UPDATE containers SET paused = ?2 WHERE id = ?1 AND status = 'running'";
    execute(tx, sql, params![id.as_str(), paused]).map(|rows| rows == 1)
}

/// Gives a container another name, which isn't in use.
///
/// # Errors
/// Those of the database.
pub fn rename(tx: &Transaction<'_>, id: &ContainerId, name: &str) -> Result<()> {
    execute(tx, "UPDATE containers SET name = ?2 WHERE id = ?1", params![id.as_str(), name]).map(drop)
}

/// Records how the first process ended. False when that was recorded before.
///
/// # Errors
/// Those of the database.
pub fn set_exited(tx: &Transaction<'_>, id: &ContainerId, exit: &Exit) -> Result<bool> {
    execute(
        tx,
        "UPDATE containers SET status = 'exited', pid = 0, exit_code = ?2, oom_killed = ?3, error = ?4, \
         finished_at = ?5, paused = 0 WHERE id = ?1 AND status IN ('starting', 'running')",
        params![id.as_str(), exit.code, exit.oom_killed, exit.error, time(exit.at)],
    )
    .map(|rows| rows == 1)
}

/// Records what is remembered of a container's restarts.
///
/// # Errors
/// Those of the database.
pub fn set_restarts(tx: &Transaction<'_>, id: &ContainerId, restarts: &Restarts) -> Result<()> {
    execute(
        tx,
        "UPDATE containers SET wanted = ?2, restart_count = ?3, restart_waited = ?4, restart_due = ?5 \
         WHERE id = ?1",
        params![
            id.as_str(),
            restarts.wanted == Wanted::Running,
            restarts.count,
            restarts.waited,
            time(restarts.due)
        ],
    )
    .map(drop)
}

/// Records that a container is to rest: its user has stopped it.
///
/// # Errors
/// Those of the database.
pub fn set_stopped(tx: &Transaction<'_>, id: &ContainerId) -> Result<()> {
    execute(tx, "UPDATE containers SET wanted = 0, restart_due = 0 WHERE id = ?1", params![id.as_str()])
        .map(drop)
}

/// Forgets a container.
///
/// # Errors
/// Those of the database.
pub fn delete(tx: &Transaction<'_>, id: &ContainerId) -> Result<()> {
    execute(tx, "DELETE FROM containers WHERE id = ?1", params![id.as_str()]).map(drop)
}

fn execute(tx: &Transaction<'_>, sql: &str, params: impl Params) -> Result<usize> {
    tx.prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params))
        .context("change a container's record")
}

fn one(db: &Connection, condition: &str, params: impl Params) -> Result<Option<Record>> {
    Ok(many(db, condition, params)?.into_iter().next())
}

fn many(db: &Connection, condition: &str, params: impl Params) -> Result<Vec<Record>> {
    let mut select = db
        .prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE {condition}"))
        .context("read containers")?;
    let rows = select.query_map(params, Raw::read).context("read containers")?;
    rows.map(|raw| raw.context("read containers").and_then(Raw::decode)).collect()
}

/// A row before its texts are understood.
struct Raw {
    namespace: String,
    id: String,
    summary: String,
    status: String,
    shim: Option<String>,
    name: String,
    image: String,
    image_id: String,
    created_at: i64,
    pid: u32,
    exit_code: u8,
    oom_killed: bool,
    error: String,
    started_at: i64,
    finished_at: i64,
    paused: bool,
    wanted: bool,
    restart_count: u32,
    restart_waited: u32,
    restart_due: i64,
    health: String,
}

impl Raw {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            namespace: row.get(0)?,
            id: row.get(1)?,
            name: row.get(2)?,
            created_at: row.get(3)?,
            image: row.get(4)?,
            image_id: row.get(5)?,
            summary: row.get(6)?,
            status: row.get(7)?,
            pid: row.get(8)?,
            exit_code: row.get(9)?,
            oom_killed: row.get(10)?,
            error: row.get(11)?,
            started_at: row.get(12)?,
            finished_at: row.get(13)?,
            shim: row.get(14)?,
            paused: row.get(15)?,
            wanted: row.get(16)?,
            restart_count: row.get(17)?,
            restart_waited: row.get(18)?,
            restart_due: row.get(19)?,
            health: row.get(20)?,
        })
    }

    fn decode(self) -> Result<Record> {
        let damaged = |e: &dyn std::fmt::Display| {
            Error::new(Kind::DataLoss, format!("the record of container {} is damaged: {e}", self.id))
        };
        let shim = self.shim.as_deref().map(serde_json::from_str).transpose();
        Ok(Record {
            namespace: self.namespace.parse().map_err(|e| damaged(&e))?,
            id: self.id.parse().map_err(|e| damaged(&e))?,
            summary: serde_json::from_str(&self.summary).map_err(|e| damaged(&e))?,
            shim: shim.map_err(|e| damaged(&e))?,
            status: Status::from_stored(&self.status)?,
            name: self.name,
            created_at: self.created_at.unsigned_abs(),
            image: self.image,
            image_id: self.image_id,
            pid: self.pid,
            paused: self.paused,
            exit: Exit {
                code: self.exit_code,
                at: self.finished_at.unsigned_abs(),
                oom_killed: self.oom_killed,
                error: self.error,
            },
            started_at: self.started_at.unsigned_abs(),
            restarts: Restarts {
                wanted: if self.wanted { Wanted::Running } else { Wanted::Stopped },
                count: self.restart_count,
                waited: self.restart_waited,
                due: self.restart_due.unsigned_abs(),
            },
            health: health::Status::of_word(&self.health),
        })
    }
}

/// As SQLite has it; the year 2262 is as far as it goes.
fn time(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::container::Summary, store::meta::Db};

    fn record(id: &str, name: &str, created_at: u64) -> Record {
        Record {
            namespace: Namespace::default(),
            id: id.parse().expect("id"),
            name: name.to_owned(),
            created_at,
            image: "i".to_owned(),
            image_id: "sha256:0".to_owned(),
            summary: Summary { command: vec!["x".to_owned()], ..Summary::default() },
            status: Status::Created,
            paused: false,
            pid: 0,
            exit: Exit::default(),
            started_at: 0,
            shim: None,
            restarts: Restarts::default(),
            health: None,
        }
    }

    fn database() -> (tempfile::TempDir, Db) {
        let dir = tempfile::tempdir().expect("tempdir");
        let db = Db::open(&dir.path().join("meta.db")).expect("open");
        let rows = [record("aa1", "one", 1), record("aa2", "two", 2), record("b", "three", 3)];
        for row in &rows {
            db.write(|tx| insert(tx, row, &Document::default())).expect("insert");
        }
        (dir, db)
    }

    #[test]
    fn containers_are_found_by_id_name_and_prefix() {
        let (_dir, db) = database();
        let ns = Namespace::default();
        let ids = |found: Vec<Record>| found.iter().map(|r| r.id.to_string()).collect::<Vec<_>>();
        assert_eq!(db.read(|c| get(c, &ns, "aa1")).expect("get"), Some(record("aa1", "one", 1)));
        assert_eq!(db.read(|c| get(c, &ns, "aa")).expect("get"), None);
        assert_eq!(
            db.read(|c| by_name(c, &ns, "two")).expect("name").map(|r| r.id.to_string()),
            Some("aa2".into())
        );
        assert_eq!(ids(db.read(|c| by_prefix(c, &ns, "a")).expect("prefix")), ["aa1", "aa2"]);
        assert_eq!(ids(db.read(|c| by_prefix(c, &ns, "b")).expect("prefix")), ["b"]);
        assert!(db.read(|c| by_prefix(c, &ns, "%")).expect("prefix").is_empty());
        let other: Namespace = "other".parse().expect("namespace");
        assert_eq!(db.read(|c| get(c, &other, "aa1")).expect("get"), None);
    }

    #[test]
    fn a_list_is_newest_first_and_running_ones_alone_on_request() {
        let (_dir, db) = database();
        let ns = Namespace::default();
        let two: ContainerId = "aa2".parse().expect("id");
        db.write(|tx| set_running(tx, &two, 7, 9)).expect("running");
        let all = db.read(|c| list(c, &ns, Scope::All)).expect("list");
        assert_eq!(all.iter().map(|r| r.created_at).collect::<Vec<_>>(), [3, 2, 1]);
        let running = db.read(|c| list(c, &ns, Scope::Running)).expect("list");
        assert_eq!(running.iter().map(|r| (r.pid, r.started_at)).collect::<Vec<_>>(), [(7, 9)]);
        assert_eq!(db.read(unsettled).expect("unsettled").len(), 1);
    }

    #[test]
    fn an_exit_is_recorded_once_and_a_state_is_left_only_from_where_it_is() {
        let (_dir, db) = database();
        let id: ContainerId = "b".parse().expect("id");
        let shim = ProcessIdentity { pid: 1, pidfd_inode: 2, start_time: 3, boot_id: "x".to_owned() };
        let moved = |from, to| db.write(|tx| transit(tx, &id, from, to)).expect("transit");
        assert!(!moved(&[Status::Running], Status::Removing));
        assert!(moved(&[Status::Created, Status::Exited], Status::Starting));
        db.write(|tx| set_shim(tx, &id, Some(&shim))).expect("shim");
        let exit = Exit { code: 3, at: 5, oom_killed: true, error: "e".to_owned() };
        assert!(db.write(|tx| set_exited(tx, &id, &exit)).expect("exit"));
        assert!(!db.write(|tx| set_exited(tx, &id, &Exit::default())).expect("exit"));
        let row = db.read(|c| get(c, &Namespace::default(), "b")).expect("get").expect("there");
        assert_eq!((row.exit, row.shim, row.status), (exit, Some(shim), Status::Exited));
        db.write(|tx| delete(tx, &id)).expect("delete");
        assert!(db.read(|c| document(c, &id)).is_err());
    }

    #[test]
    fn a_container_is_paused_while_it_runs_and_no_longer() {
        let (_dir, db) = database();
        let id: ContainerId = "b".parse().expect("id");
        let paused = || db.read(|c| any(c, &id)).expect("read").expect("there").paused;
        assert!(!db.write(|tx| set_paused(tx, &id, true)).expect("not running"));
        for end in [true, false] {
            db.write(|tx| set_running(tx, &id, 7, 9)).expect("running");
            assert!(!paused(), "nothing of the last run");
            assert!(db.write(|tx| set_paused(tx, &id, true)).expect("pause") && paused());
            if end {
                db.write(|tx| set_exited(tx, &id, &Exit::default())).expect("exit");
                assert!(!paused());
            }
        }
    }

    #[test]
    fn an_exited_container_to_be_removed_is_unsettled() {
        let (_dir, db) = database();
        let mut row = record("c", "four", 4);
        row.summary.auto_remove = true;
        row.status = Status::Exited;
        db.write(|tx| insert(tx, &row, &Document::default())).expect("insert");
        let found = db.read(unsettled).expect("unsettled");
        assert_eq!(found.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["c"]);
    }
}
