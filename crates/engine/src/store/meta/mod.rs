// SPDX-License-Identifier: Apache-2.0
//! Metadata in SQLite: what must survive and is not in a bundle.
//!
//! One writer, readers that never block (WAL). `synchronous=NORMAL`: a crash
//! of the engine loses nothing, a power cut may lose the last moments and
//! never corrupts. An image's commit asks for more with [`Db::write_durably`].
//! One file per noun holds its statements; what they mean is lifecycle's.
//!
//! Everything here blocks: callers are on a blocking thread.

pub mod blobs;
pub mod containers;
pub mod engine;
pub mod events;
pub mod everything;
pub mod graph;
pub mod health;
pub mod images;
pub mod logs;
pub mod mounts;
pub mod preloaded;
pub mod snapshots;

use std::{
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::Reserve;
use crate::error::{Context as _, Error, Kind, Result};

/// Schema steps; the database's `user_version` counts those that ran.
const MIGRATIONS: [&str; 6] = [
    include_str!("schema/001.sql"),
    include_str!("schema/002.sql"),
    include_str!("schema/003.sql"),
    include_str!("schema/004.sql"),
    include_str!("schema/005.sql"),
    include_str!("schema/006.sql"),
];

/// SQLite's cache of a connection: KiB, as a negative number. What is not in it
/// is in the kernel's; the 2 MiB that it has by itself fill over thousands of
/// containers, and look like a leak meanwhile.
const CACHE: i32 = -512;

/// Idle read connections that are kept.
const IDLE_READERS: usize = 4;

/// How long a read that can't have a connection of its own waits for one.
const READER_WITHIN: Duration = Duration::from_secs(5);

/// The metadata database.
#[derive(Debug)]
pub struct Db {
    path: std::path::PathBuf,
    /// The idle ones; one is there from the beginning.
    readers: Mutex<Vec<Connection>>,
    reader_is_back: Condvar,
    /// After the readers: the last to close folds the log into the database,
    /// which a reader may not.
    writer: Mutex<Connection>,
    reserve: Option<Reserve>,
}

impl Db {
    /// Opens or makes the database at `path` and brings its schema up to date.
    ///
    /// # Errors
    /// `FailedPrecondition` for a database of a newer berth; `DataLoss` for
    /// one that is damaged; those of the host.
    pub fn open(path: &Path) -> Result<Self> {
        let mut writer = Connection::open(path).context("open the metadata database")?;
        configure(&writer).context("configure the metadata database")?;
        migrate(&mut writer)?;
        let reader = open_reader(path)?;
        // The first read opens the rest of its files.
        version(&reader)?;
        Ok(Self {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(vec![reader]),
            reader_is_back: Condvar::new(),
            reserve: None,
        })
    }

    /// From here on writes have `reserve` when the disk is full.
    #[must_use]
    pub fn with_reserve(mut self, reserve: Reserve) -> Self {
        self.reserve = Some(reserve);
        self
    }

    /// Looks for damage: a pass over all pages, not over what they mean.
    ///
    /// # Errors
    /// `DataLoss` with the first finding; those of the database.
    pub fn check(&self) -> Result<()> {
        check(&lock(&self.writer))
    }

    /// Runs `f` in the one write transaction there can be; an error rolls it
    /// back.
    ///
    /// # Errors
    /// That of `f`, or the database's.
    pub fn write<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut writer = lock(&self.writer);
        self.make_room();
        write(&mut writer, f)
    }

    /// As [`Db::write`], and the disk has it when this returns.
    ///
    /// # Errors
    /// That of `f`, or the database's.
    pub fn write_durably<T>(&self, f: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        let mut writer = lock(&self.writer);
        self.make_room();
        writer.pragma_update(None, "synchronous", "FULL").context("raise durability")?;
        let result = write(&mut writer, f);
        writer.pragma_update(None, "synchronous", "NORMAL").context("lower durability")?;
        result
    }

    fn make_room(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.make_room();
        }
    }

    /// Runs `f` on a snapshot of the database, beside any writer.
    ///
    /// # Errors
    /// That of `f`, or the database's.
    pub fn read<T>(&self, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut reader = self.reader()?;
        let snapshot = reader.transaction().context("begin to read metadata")?;
        let result = f(&snapshot);
        drop(snapshot);
        let mut readers = lock(&self.readers);
        if readers.len() < IDLE_READERS {
            readers.push(reader);
            self.reader_is_back.notify_one();
        }
        result
    }

    /// An idle connection, or a new one. Without a descriptor for that, whoever
    /// reads now will give one back.
    fn reader(&self) -> Result<Connection> {
        if let Some(idle) = lock(&self.readers).pop() {
            return Ok(idle);
        }
        open_reader(&self.path).or_else(|e| {
            let waited =
                self.reader_is_back
                    .wait_timeout_while(lock(&self.readers), READER_WITHIN, |readers| readers.is_empty());
            let mut readers = waited.unwrap_or_else(PoisonError::into_inner).0;
            readers.pop().ok_or(e)
        })
    }
}

/// Runs `f` on a snapshot of the database at `path`, which isn't changed,
/// beside an engine or without one.
///
/// # Errors
/// `NotFound` when there is none, `FailedPrecondition` for one of another
/// version; that of `f`, or the database's.
pub fn look<T>(path: &Path, f: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    if !path.exists() {
        return Err(Error::new(Kind::NotFound, format!("no metadata at {}", path.display())));
    }
    let mut reader = open_reader(path)?;
    let snapshot = reader.transaction().context("begin to read metadata")?;
    let version = version(&snapshot)?;
    if version != MIGRATIONS.len() {
        let known = MIGRATIONS.len();
        let text = format!("the metadata has version {version}, this berth reads {known}");
        return Err(Error::new(Kind::FailedPrecondition, text));
    }
    f(&snapshot)
}

/// Looks for damage: a pass over all pages, not over what they mean.
///
/// # Errors
/// `DataLoss` with the first finding; those of the database.
pub fn check(connection: &Connection) -> Result<()> {
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", (), |row| row.get(0))
        .context("check the metadata database")?;
    // A heading with the database's name comes first.
    match finding.lines().last() {
        Some("ok") => Ok(()),
        last => Err(Error::new(Kind::DataLoss, last.unwrap_or("no finding"))),
    }
}

fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags).context("open the metadata database to read")?;
    reader.busy_timeout(Duration::from_secs(5)).context("configure a metadata reader")?;
    reader.pragma_update(None, "cache_size", CACHE).context("configure a metadata reader")?;
    Ok(reader)
}

fn version(connection: &Connection) -> Result<usize> {
    let version: u32 = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .context("read the version of the metadata")?;
    Ok(version as usize)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic inside a transaction rolled it back: the connection is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "cache_size", CACHE)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

fn write<T>(writer: &mut Connection, f: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
    let transaction = writer
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .context("begin to change metadata")?;
    let value = f(&transaction)?;
    transaction.commit().context("commit metadata")?;
    Ok(value)
}

fn migrate(connection: &mut Connection) -> Result<()> {
    let version = version(connection)?;
    if version > MIGRATIONS.len() {
        return Err(Error::new(
            Kind::FailedPrecondition,
            format!(
                "the metadata has version {version}, this berth knows up to {}: run a newer berth",
                MIGRATIONS.len()
            ),
        ));
    }
    for (done, step) in MIGRATIONS.iter().enumerate().skip(version) {
        write(connection, |tx| {
            tx.execute_batch(step)
                .with_context(|| format!("migrate the metadata to version {}", done + 1))?;
            tx.pragma_update(None, "user_version", u32::try_from(done + 1).unwrap_or(u32::MAX))
                .context("record the metadata's version")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_database_has_the_newest_schema_and_opens_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("meta.db");
        for _ in 0..2 {
            let db = Db::open(&path).expect("open");
            let n: i64 = db
                .read(|c| c.query_row("SELECT count(*) FROM containers", (), |r| r.get(0)).context("count"))
                .expect("read");
            assert_eq!(n, 0);
        }
    }

    #[test]
    fn a_database_of_the_future_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("meta.db");
        Connection::open(&path).expect("open").pragma_update(None, "user_version", 99).expect("set");
        assert_eq!(Db::open(&path).expect_err("newer").kind(), Kind::FailedPrecondition);
    }

    #[test]
    fn who_can_open_no_connection_waits_for_one() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("db");
        let db = Db::open(&path).expect("open");
        let (busy, begun) = std::sync::mpsc::channel::<()>();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let db = &db;
            scope.spawn(move || {
                db.read(|_| {
                    busy.send(()).expect("somebody waits");
                    // Long enough for the other one to come to wait.
                    let _ = ended.recv_timeout(Duration::from_millis(200));
                    Ok(())
                })
            });
            begun.recv().expect("a reader");
            // As without a descriptor: nothing can be opened.
            std::fs::rename(&path, dir.path().join("elsewhere")).expect("rename");
            assert_eq!(db.read(version).expect("the one that comes back"), MIGRATIONS.len());
            drop(end);
        });
    }

    #[test]
    fn an_error_rolls_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let db = Db::open(&dir.path().join("meta.db")).expect("open");
        let failed: Result<()> = db.write(|tx| {
            tx.execute("INSERT INTO engine (id) VALUES ('x')", ()).context("insert")?;
            Err(Error::new(Kind::Internal, "no"))
        });
        assert!(failed.is_err());
        let n: i64 = db
            .read(|c| c.query_row("SELECT count(*) FROM engine", (), |r| r.get(0)).context("count"))
            .expect("read");
        assert_eq!(n, 0);
    }
}
