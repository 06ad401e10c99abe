// SPDX-License-Identifier: Apache-2.0
//! Events: told to subscribers after the change that caused them is committed.
//!
//! A subscriber reads the events table and remembers how far it came. Nothing
//! is queued for it in memory, so a slow one costs nothing, and one that comes
//! back after a restart of the engine goes on where it was. If it is slower
//! than the table is trimmed, it is told of the gap.

mod filter;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{sync::watch, task::spawn_blocking};

pub use filter::EventFilter;

pub use crate::store::meta::events::Event;
use crate::{
    error::{Context as _, Result},
    store::meta::{Db, events},
};

/// Events read at a time.
const BATCH: usize = 256;

/// Commits between two looks at how many events are kept.
const TRIM_EVERY: u64 = 1024;

/// Wakes those who follow the events table, and keeps it from growing.
#[derive(Debug)]
pub struct Events {
    db: Arc<Db>,
    retain: u32,
    /// Counts commits.
    changed: watch::Sender<u64>,
}

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what happens from now on.
    Now,
    /// With the event after this cursor.
    After(u64),
    /// With the first event at or after this time, in nanoseconds since the
    /// Unix epoch.
    Since(u64),
}

/// What a subscriber wants.
#[derive(Debug, Clone)]
pub struct Query {
    /// Where to start.
    pub start: Start,
    /// The subscription ends when an event is later, or the time has come; in
    /// nanoseconds since the Unix epoch.
    pub until: Option<u64>,
    /// Which events.
    pub filter: EventFilter,
}

/// What a subscriber is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// First of all: the subscription is in place, and this is the cursor of
    /// the newest event before it.
    Subscribed(u64),
    /// Something happened.
    Event(Event),
    /// Events before this cursor are no longer kept, and some of them were
    /// not told.
    Gap(u64),
}

impl Events {
    /// Follows the events of `db`, of which the newest `retain` are kept.
    #[must_use]
    pub fn new(db: Arc<Db>, retain: u32) -> Arc<Self> {
        Arc::new(Self { db, retain, changed: watch::Sender::new(0) })
    }

    /// Tells subscribers that events were committed. Called after a write that
    /// appended with `store::meta::events::append`; never blocks.
    pub fn committed(&self) {
        self.changed.send_modify(|commits| *commits = commits.wrapping_add(1));
    }

    /// Starts to follow. The first notice is [`Notice::Subscribed`].
    ///
    /// # Errors
    /// Those of the database.
    pub async fn subscribe(self: &Arc<Self>, query: Query) -> Result<Subscription> {
        let changed = self.changed.subscribe();
        let db = Arc::clone(&self.db);
        let start = query.start;
        let (newest, mut cursor) = spawn_blocking(move || db.read(|db| begin(db, start)))
            .await
            .context("begin to read events")??;
        let mut ready = VecDeque::from([Notice::Subscribed(newest)]);
        if cursor > newest {
            // A cursor of another root, or of a moment that a power cut took.
            ready.push_back(Notice::Gap(newest + 1));
            cursor = newest;
        }
        Ok(Subscription { db: Arc::clone(&self.db), changed, query, cursor, ready, ended: false })
    }

    /// Forgets the oldest events whenever enough new ones have come; runs
    /// until dropped.
    pub async fn keep_trimmed(self: Arc<Self>) {
        let mut changed = self.changed.subscribe();
        loop {
            let trimmed_at = *changed.borrow_and_update();
            self.trim().await;
            let due = |commits: &u64| commits.wrapping_sub(trimmed_at) >= TRIM_EVERY;
            if changed.wait_for(due).await.is_err() {
                return;
            }
        }
    }

    async fn trim(self: &Arc<Self>) {
        let this = Arc::clone(self);
        let trimmed = spawn_blocking(move || this.db.write(|tx| events::trim(tx, this.retain)));
        match trimmed.await.context("trim events") {
            Ok(Ok(_)) => {}
            // The next round tries again; until then the table is larger.
            Ok(Err(e)) | Err(e) => tracing::warn!("{}", e.chain()),
        }
    }
}

/// The newest cursor, and the one to go on after.
fn begin(db: &rusqlite::Connection, start: Start) -> Result<(u64, u64)> {
    let newest = events::bounds(db)?.newest;
    let cursor = match start {
        Start::Now => newest,
        Start::After(cursor) => cursor,
        Start::Since(time) => events::before_time(db, time)?,
    };
    Ok((newest, cursor))
}

/// One subscriber's place in the events; ends when dropped.
#[derive(Debug)]
pub struct Subscription {
    db: Arc<Db>,
    changed: watch::Receiver<u64>,
    query: Query,
    /// Everything up to here was told, or didn't match.
    cursor: u64,
    ready: VecDeque<Notice>,
    ended: bool,
}

impl Subscription {
    /// The next notice, once there is one; `None` when `until` has come.
    ///
    /// # Errors
    /// Those of the database. The subscription may be asked again.
    pub async fn next(&mut self) -> Result<Option<Notice>> {
        loop {
            if let Some(notice) = self.ready.pop_front() {
                return Ok(Some(notice));
            }
            if self.ended {
                return Ok(None);
            }
            let over = self.time_left() == Some(Duration::ZERO);
            // Marked as seen before it is read: a commit in between wakes us.
            self.changed.borrow_and_update();
            if !self.read().await? {
                self.ended |= over;
                self.wait().await;
            }
        }
    }

    /// Reads a batch; whether there was anything.
    async fn read(&mut self) -> Result<bool> {
        let db = Arc::clone(&self.db);
        let cursor = self.cursor;
        let read = move || db.read(|db| Ok((events::bounds(db)?, events::after(db, cursor, BATCH)?)));
        let (bounds, batch) = spawn_blocking(read).await.context("read events")??;

        if cursor + 1 < bounds.oldest {
            self.ready.push_back(Notice::Gap(bounds.oldest));
            self.cursor = bounds.oldest - 1;
        }
        let any = !batch.is_empty();
        for event in batch {
            self.take(event);
        }
        Ok(any || !self.ready.is_empty())
    }

    fn take(&mut self, event: Event) {
        if self.ended || self.query.until.is_some_and(|until| event.time > until) {
            self.ended = true;
            return;
        }
        self.cursor = event.cursor;
        if self.query.filter.matches(&event) {
            self.ready.push_back(Notice::Event(event));
        }
    }

    /// Until something is committed, or it is time to end.
    async fn wait(&mut self) {
        let left = self.time_left();
        tokio::select! {
            changed = self.changed.changed() => self.ended |= changed.is_err(),
            () = sleep(left) => {}
        }
    }

    /// Time until `until`; `None` without one.
    fn time_left(&self) -> Option<Duration> {
        let until = UNIX_EPOCH + Duration::from_nanos(self.query.until?);
        Some(until.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
