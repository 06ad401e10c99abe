// SPDX-License-Identifier: Apache-2.0
//! Removing a container and everything that belongs to it.

use std::{fs, io, path::Path, sync::Arc};

use berth::failpoint;

use super::{Containers, Entry, Phase, event, signal};
use crate::{
    domain::{
        record::Record,
        state::{Shown, Status},
    },
    error::{Error, Kind, Result},
    kernel::memory,
    store::meta::{containers as rows, events},
};

/// What to do with a container that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Refuse.
    No,
    /// Kill it first.
    Yes,
}

impl From<bool> for Force {
    fn from(force: bool) -> Self {
        if force { Self::Yes } else { Self::No }
    }
}

impl Containers {
    /// Removes a container. Repeating it, or two at once, is fine.
    ///
    /// # Errors
    /// `FailedPrecondition` when it runs and isn't to be killed.
    pub async fn remove(self: &Arc<Self>, record: Record, force: Force) -> Result<()> {
        let this = Arc::clone(self);
        Self::detached(async move { this.remove_now(record, force).await }).await
    }

    async fn remove_now(self: &Arc<Self>, record: Record, force: Force) -> Result<()> {
        let entry = self.entry(&record.id);
        if force == Force::Yes {
            // Or its policy would start it once it is killed.
            self.want_stopped(&entry, &record).await?;
        }
        loop {
            let ends = entry.view().ends;
            if let Some(live) = entry.live() {
                if force == Force::No {
                    return Err(self
                        .reload(&record)
                        .await?
                        .map_or_else(|| running(&record), |now| running(&now)));
                }
                self.terminate(&entry, &live, ends).await?;
            }
            let _gate = entry.gate.lock().await;
            let Some(record) = self.reload(&record).await? else { return Ok(()) };
            match record.status {
                // Started again meanwhile.
                Status::Running | Status::Starting if entry.live().is_some() => {
                    if force == Force::No {
                        return Err(running(&record));
                    }
                }
                // Nobody can speak to its shim, if there is one.
                Status::Running | Status::Starting if force == Force::Yes => {
                    self.end_unreachable(&entry, &record).await?;
                }
                // The engine's start is still looking for its shim.
                Status::Running | Status::Starting => return Err(signal::unreachable(&record)),
                Status::Exited if force == Force::No && record.is_restarting() => {
                    return Err(running(&record));
                }
                _ => return self.remove_locked(&entry, &record).await,
            }
        }
    }

    /// Removes a container that is at rest; the gate is held.
    pub(super) async fn remove_locked(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) -> Result<()> {
        // They have its layers mounted, and nobody needs them any more.
        entry.end_copies()?;
        let row = record.clone();
        self.blocking(move |this| {
            let from = [Status::Created, Status::Exited, Status::Removing, Status::Creating];
            let found = this.db.write(|tx| {
                let ours = rows::transit(tx, &row.id, &from, Status::Removing)?;
                if ours { rows::any(tx, &row.id) } else { Ok(None) }
            })?;
            let Some(row) = found else { return Ok(()) };
            failpoint::hit("remove.row")?;
            this.end_left_shim(&row)?;
            this.remove_files(&row)?;
            this.db.write(|tx| {
                rows::delete(tx, &row.id)?;
                events::append(tx, &event(&row, "destroy", &[]))
            })?;
            failpoint::pass("remove.done");
            this.events.committed();
            memory::release_now_and_then();
            Ok(())
        })
        .await?;
        entry.set(Phase::Removed);
        self.entries().remove(&record.id);
        Ok(())
    }

    /// `--rm`: nobody waits for it, so a failure is logged; the engine's next
    /// start tries again.
    pub(super) async fn remove_automatically(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) {
        if let Err(e) = self.remove_locked(entry, record).await {
            tracing::error!(id = %record.id, error = e.chain(), "remove a container that has ended");
        }
    }

    /// Everything of a container on disk but its row. Blocks; repeatable.
    pub(super) fn remove_files(&self, record: &Record) -> Result<()> {
        self.sweep(record)?;
        failpoint::hit("remove.swept")?;
        self.snapshots.remove(record.id.as_str())?;
        failpoint::hit("remove.layer")?;
        let dir = self.directory(&record.namespace, &record.id);
        let removed = remove_all(&dir);
        failpoint::hit("remove.directory")?;
        match removed {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove the container's directory", e))
            }
            _ => Ok(()),
        }
    }
}

fn running(record: &Record) -> Error {
    let (state, first) = match record.shown() {
        Shown::Paused => ("paused", "unpause and then "),
        Shown::Restarting => ("restarting", ""),
        _ => ("running", ""),
    };
    Error::new(
        Kind::FailedPrecondition,
        format!(
            "cannot remove container \"/{}\": container is {state}: \
             {first}stop the container before removing or force remove",
            record.name
        ),
    )
}

/// Removes a directory in which a segment of the log may just be compressed:
/// what is under way makes one more file, and finds nothing to go on with.
fn remove_all(dir: &Path) -> io::Result<()> {
    for _ in 0..3 {
        match fs::remove_dir_all(dir) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => return removed,
        }
    }
    fs::remove_dir_all(dir)
}
