// SPDX-License-Identifier: Apache-2.0
//! One at a time per digest: two pulls never fetch or unpack the same thing.
//! Who waits sees how the one who works gets on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::{
    sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch},
    task::AbortHandle,
};

use super::progress::{Phase, Slot};
use crate::domain::digest::Digest;

/// How far the work on a digest is.
pub(super) type Shown = watch::Sender<Option<(Phase, u64)>>;

/// A lock per digest, made when it is needed.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<Digest, Weak<Entry>>>);

#[derive(Debug, Default)]
struct Entry {
    lock: Arc<AsyncMutex<()>>,
    shown: Arc<Shown>,
}

/// Held by whoever works on a digest.
#[derive(Debug)]
pub(super) struct Guard {
    _held: OwnedMutexGuard<()>,
    entry: Arc<Entry>,
}

impl Guard {
    /// Where to show how the work gets on, for those who wait.
    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.entry.shown)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.entry.shown.send_replace(None);
    }
}

/// Shows another's progress, until it is dropped.
#[derive(Debug)]
pub(super) struct Mirror(AbortHandle);

impl Drop for Mirror {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Locks {
    /// Waits until nobody else works on `key`.
    pub(super) async fn lock(&self, key: &Digest) -> Guard {
        let entry = self.entry(key);
        let held = Arc::clone(&entry.lock).lock_owned().await;
        Guard { _held: held, entry }
    }

    /// Shows in `slot` what others who work on `key` show.
    pub(super) fn mirror(&self, key: &Digest, slot: &Slot) -> Mirror {
        let (entry, slot) = (self.entry(key), slot.clone());
        let mut shown = entry.shown.subscribe();
        shown.mark_changed();
        let task = tokio::spawn(async move {
            let _entry = entry;
            while shown.changed().await.is_ok() {
                let now = *shown.borrow_and_update();
                if let Some((phase, current)) = now {
                    slot.set(phase, current);
                }
            }
        });
        Mirror(task.abort_handle())
    }

    fn entry(&self, key: &Digest) -> Arc<Entry> {
        let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|_, lock| lock.strong_count() > 0);
        let known = locks.get(key).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let entry = Arc::<Entry>::default();
            locks.insert(key.clone(), Arc::downgrade(&entry));
            entry
        })
    }
}
