// SPDX-License-Identifier: Apache-2.0
//! Changing limits and labels: first in the kernel, when it runs, then in the
//! row. Whoever is cut off in between was told nothing, and the next start has
//! the limits that the row has.

use std::sync::Arc;

use super::{Containers, Live, event, signal};
use crate::{
    domain::{
        container::{Document, HostConfig},
        record::Record,
        spec::resources,
        state::Status,
        update::Changes,
    },
    error::{Error, Kind, Result},
    store::meta::{containers as rows, events},
};

impl Containers {
    /// Changes a container's limits and labels: all that is asked for, or
    /// nothing.
    ///
    /// # Errors
    /// `InvalidArgument` naming what can't be changed so, `Unavailable` when
    /// its shim doesn't answer.
    pub async fn update(self: &Arc<Self>, record: Record, changes: Changes) -> Result<()> {
        let this = Arc::clone(self);
        Self::detached(async move {
            let updated = this.update_now(&record, &changes).await;
            updated.map_err(|e| explain(&record, &e))
        })
        .await
    }

    async fn update_now(self: &Arc<Self>, record: &Record, changes: &Changes) -> Result<()> {
        let entry = self.entry(&record.id);
        let _gate = entry.gate.lock().await;
        let gone = || Error::new(Kind::NotFound, format!("No such container: {}", record.id));
        let record = self.reload(record).await?.ok_or_else(gone)?;
        let id = record.id.clone();
        let before = self.blocking(move |this| this.read_document(&id)).await?;
        let after = changes.apply(&before)?;
        match record.status {
            Status::Running | Status::Starting => {
                let live = signal::running(&entry, &record)?;
                apply(&live, &before.config.host, &after.config.host).await?;
            }
            Status::Removing => {
                let what = "container is marked for removal and cannot be updated";
                return Err(Error::new(Kind::FailedPrecondition, what));
            }
            Status::Creating | Status::Created | Status::Exited => {}
        }
        self.record_update(record, after).await
    }

    async fn record_update(self: &Arc<Self>, mut record: Record, document: Document) -> Result<()> {
        self.blocking(move |this| {
            record.summary = document.summary();
            this.db.write(|tx| {
                rows::set_document(tx, &record.id, &document)?;
                events::append(tx, &event(&record, "update", &[]))
            })?;
            this.events.committed();
            Ok(())
        })
        .await
    }
}

/// Changes the limits of a container that runs; when one is refused, those
/// before it are as they were.
async fn apply(live: &Live, before: &HostConfig, after: &HostConfig) -> Result<()> {
    if before == after {
        return Ok(());
    }
    let Err(error) = live.task.update(&resources::change(before, after)).await else { return Ok(()) };
    if let Err(e) = live.task.update(&resources::change(after, before)).await {
        tracing::warn!(id = %live.id, error = e.chain(), "undo an update that was refused");
    }
    Err(error)
}

fn explain(record: &Record, error: &Error) -> Error {
    Error::new(error.kind(), format!("Cannot update container {}", record.name)).with_source(error.chain())
}
