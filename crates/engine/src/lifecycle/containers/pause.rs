// SPDX-License-Identifier: Apache-2.0
//! Freezing a container, and letting it go on.

use std::sync::Arc;

use berth::failpoint;

use super::{Containers, event, signal};
use crate::{
    domain::{record::Record, state::Status},
    error::{Error, Kind, Result},
    store::meta::{containers as rows, events},
};

impl Containers {
    /// Freezes all processes of a running container.
    ///
    /// # Errors
    /// `FailedPrecondition` when it doesn't run or is paused already,
    /// `Unavailable` when its shim doesn't answer.
    pub async fn pause(self: &Arc<Self>, record: Record) -> Result<()> {
        self.set_paused(record, true).await
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// `FailedPrecondition` when it doesn't run or isn't paused, `Unavailable`
    /// when its shim doesn't answer.
    pub async fn unpause(self: &Arc<Self>, record: Record) -> Result<()> {
        self.set_paused(record, false).await
    }

    /// Lets it go on in case it is paused, so that it can follow a signal. That
    /// it has ended meanwhile is fine.
    pub(super) async fn thaw(self: &Arc<Self>, record: &Record) -> Result<()> {
        match self.unpause(record.clone()).await {
            Err(e) if e.kind() == Kind::FailedPrecondition => Ok(()),
            done => done,
        }
    }

    async fn set_paused(self: &Arc<Self>, record: Record, paused: bool) -> Result<()> {
        let this = Arc::clone(self);
        Self::detached(async move {
            let entry = this.entry(&record.id);
            let _gate = entry.gate.lock().await;
            let gone = || Error::new(Kind::NotFound, format!("No such container: {}", record.id));
            let record = this.reload(&record).await?.ok_or_else(gone)?;
            let live = signal::running(&entry, &record)?;
            check(&record, paused)?;
            if paused { live.task.pause().await } else { live.task.resume().await }?;
            let recorded = async {
                failpoint::hit(if paused { "pause.frozen" } else { "unpause.thawed" })?;
                this.record_paused(&record, paused).await
            };
            if let Err(error) = recorded.await {
                // What nobody knows of is not so.
                let undone = if paused { live.task.resume().await } else { live.task.pause().await };
                if let Err(e) = undone {
                    tracing::warn!(id = %record.id, error = e.chain(), "undo what could not be recorded");
                }
                return Err(error);
            }
            failpoint::pass(if paused { "pause.done" } else { "unpause.done" });
            Ok(())
        })
        .await
    }

    /// Records what the shim has done; the gate is held.
    pub(super) async fn record_paused(self: &Arc<Self>, record: &Record, paused: bool) -> Result<()> {
        let record = record.clone();
        self.blocking(move |this| {
            this.db.write(|tx| {
                if !rows::set_paused(tx, &record.id, paused)? {
                    return Ok(());
                }
                let action = if paused { "pause" } else { "unpause" };
                events::append(tx, &event(&record, action, &[]))
            })?;
            this.events.committed();
            Ok(())
        })
        .await
    }
}

fn check(record: &Record, paused: bool) -> Result<()> {
    let refuse =
        |why: &str| Err(Error::new(Kind::FailedPrecondition, format!("container {} is {why}", record.id)));
    match (record.status, record.paused, paused) {
        (Status::Running, true, true) => refuse("already paused"),
        (Status::Running, false, false) => refuse("not paused"),
        (Status::Running, ..) => Ok(()),
        _ => refuse("not running"),
    }
}
