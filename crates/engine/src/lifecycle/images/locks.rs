// SPDX-License-Identifier: Apache-2.0
//! One at a time per digest: two pulls never fetch or unpack the same thing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use crate::domain::digest::Digest;

/// A lock per digest, made when it is needed.
#[derive(Debug, Default)]
pub(super) struct Locks(Mutex<HashMap<Digest, Weak<AsyncMutex<()>>>>);

/// Held by whoever works on a digest.
pub(super) type Guard = OwnedMutexGuard<()>;

impl Locks {
    /// Waits until nobody else works on `key`.
    pub(super) async fn lock(&self, key: &Digest) -> Guard {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::new(AsyncMutex::new(()));
                locks.insert(key.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}
