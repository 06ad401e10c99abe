// SPDX-License-Identifier: Apache-2.0
//! Wakes those who follow a log when its directory changes: one inotify
//! instance for all of them.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OnceCell, watch};

use crate::{
    error::{Context as _, Result},
    kernel::inotify::{Inotify, Notice, Watched},
};

/// All who follow logs. The instance is made with the first.
#[derive(Debug)]
pub struct Changes {
    what: Watched,
    shared: OnceCell<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    inotify: Inotify,
    /// By the number of the watch: who is to be woken, and how many they are.
    watches: Mutex<HashMap<i32, (watch::Sender<()>, usize)>>,
}

/// A directory that is watched as long as this lives.
#[derive(Debug)]
pub(in crate::lifecycle) struct Changed {
    shared: Arc<Shared>,
    watch: i32,
    receiver: watch::Receiver<()>,
}

impl Changes {
    /// Nothing is watched yet.
    #[must_use]
    pub fn new(what: Watched) -> Self {
        Self { what, shared: OnceCell::new() }
    }

    /// Watches the directory of `log`; `None` when there is no such directory
    /// (the container is gone).
    pub(in crate::lifecycle) async fn watch(&self, log: &Path) -> Result<Option<Changed>> {
        let shared = self.shared.get_or_try_init(async || start()).await?;
        let dir = log.parent().unwrap_or(log);
        let mut watches = shared.watches();
        let watch = match shared.inotify.watch(dir, self.what) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            watch => watch.context("watch a log")?,
        };
        let (sender, count) = watches.entry(watch).or_insert_with(|| (watch::Sender::new(()), 0));
        *count += 1;
        Ok(Some(Changed { shared: Arc::clone(shared), watch, receiver: sender.subscribe() }))
    }
}

fn start() -> Result<Arc<Shared>> {
    let inotify = Inotify::new().context("start to watch logs")?;
    let shared = Arc::new(Shared { inotify, watches: Mutex::default() });
    let reader = Arc::clone(&shared);
    // Lives as long as the engine, as the instance does.
    tokio::spawn(async move {
        loop {
            match reader.inotify.read().await {
                Ok(notices) => reader.wake(&notices),
                Err(e) => {
                    tracing::error!(error = %e, "watching logs has failed; followers see new lines at the end only");
                    return;
                }
            }
        }
    });
    Ok(shared)
}

impl Shared {
    fn watches(&self) -> MutexGuard<'_, HashMap<i32, (watch::Sender<()>, usize)>> {
        // Every change is one insert, remove or count: a panic can't tear it.
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, notices: &[Notice]) {
        let watches = self.watches();
        for notice in notices {
            match notice {
                Notice::Changed(watch) => {
                    if let Some((sender, _)) = watches.get(watch) {
                        sender.send_replace(());
                    }
                }
                Notice::Lost => watches.values().for_each(|(sender, _)| {
                    sender.send_replace(());
                }),
            }
        }
    }
}

impl Changed {
    /// Waits for the next change since the last call.
    pub(in crate::lifecycle) async fn changed(&mut self) {
        // The sender lives as long as this is counted.
        drop(self.receiver.changed().await);
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let mut watches = self.shared.watches();
        let Some((_, count)) = watches.get_mut(&self.watch) else { return };
        *count -= 1;
        if *count == 0 {
            watches.remove(&self.watch);
            // The directory, and the watch with it, may be gone already.
            drop(self.shared.inotify.unwatch(self.watch));
        }
    }
}
