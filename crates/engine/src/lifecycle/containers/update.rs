// SPDX-License-Identifier: Apache-2.0
//! Changing limits and labels: first in the kernel, when it runs, then in the
//! row. Whoever is cut off in between was told nothing, and the next start has
//! the limits that the row has.

use std::sync::Arc;

use berth::failpoint;

use super::{Containers, Entry, Live, event, logging, policy, signal};
use crate::{
    domain::{
        container::{Document, HostConfig},
        log::LogDriver,
        record::Record,
        restart::{End, Moment, Restarts},
        spec::resources,
        state::Status,
        update::Changes,
    },
    error::{Error, Kind, Result},
    store::meta::{containers as rows, events, health},
};

/// What an update means for the check of a container's health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HealthUpdate {
    /// Nothing.
    Same,
    /// It is made at other times, or has other consequences.
    Otherwise,
    /// What is known says nothing any more.
    OtherTest,
}

impl HealthUpdate {
    fn of(before: &Document, after: &Document) -> Self {
        let test = |document: &Document| document.effective.health.as_ref().map(|check| check.test.clone());
        match (test(before) == test(after), before.effective.health == after.effective.health) {
            (_, true) => Self::Same,
            (true, false) => Self::Otherwise,
            (false, false) => Self::OtherTest,
        }
    }
}

impl Containers {
    /// Changes a container's limits and labels: all that is asked for, or
    /// nothing.
    ///
    /// # Errors
    /// `InvalidArgument` naming what can't be changed so, `Unavailable` when
    /// its shim doesn't answer.
    pub async fn update(self: &Arc<Self>, record: Record, changes: Changes) -> Result<()> {
        let this = Arc::clone(self);
        // Boxed: it holds two whole configurations.
        let work = Box::pin(async move {
            let updated = this.update_now(&record, &changes).await;
            updated.map_err(|e| explain(&record, &e))
        });
        Self::detached(work).await
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
                let log = |document| logging::changeable(&record, document, &self.defaults);
                if log(&before) != log(&after)
                    && after.config.host.log.driver != LogDriver::None
                    && let Err(error) = live.task.update_log(&log(&after)).await
                {
                    apply(&live, &after.config.host, &before.config.host).await?;
                    return Err(error);
                }
            }
            Status::Removing => {
                let what = "container is marked for removal and cannot be updated";
                return Err(Error::new(Kind::FailedPrecondition, what));
            }
            Status::Creating | Status::Created | Status::Exited => {}
        }
        let health = HealthUpdate::of(&before, &after);
        let recorded = async {
            failpoint::hit("update.applied")?;
            self.record_update(record.clone(), after.clone(), health).await
        };
        if let Err(error) = recorded.await {
            // What nobody knows of is not so.
            if let Some(live) = entry.running() {
                apply(&live, &after.config.host, &before.config.host).await?;
            }
            return Err(error);
        }
        failpoint::pass("update.done");
        entry.log_options.notify_one();
        if health != HealthUpdate::Same {
            entry.health_check_changed();
            if let (Some(live), Some(now)) = (entry.running(), self.reload(&record).await?) {
                self.watch_health(&entry, &now, &live);
            }
        }
        if record.is_restarting() { self.judge_again(&entry, &record).await } else { Ok(()) }
    }

    /// A restart that another policy wouldn't make isn't made. The gate is held.
    async fn judge_again(self: &Arc<Self>, entry: &Entry, record: &Record) -> Result<()> {
        let id = record.id.clone();
        let called_off = self
            .blocking(move |this| {
                this.db.write(|tx| {
                    let Some(mut row) = rows::any(tx, &id)? else { return Ok(false) };
                    // The one that is due has been counted.
                    row.restarts.count = row.restarts.count.saturating_sub(1);
                    let end = End { code: row.exit.code, ran: policy::ran(&row) };
                    if row.summary.restart.decide(&row.restarts, Moment::Ended, end).is_some() {
                        return Ok(false);
                    }
                    rows::set_restarts(tx, &id, &Restarts { due: 0, ..row.restarts })?;
                    Ok(true)
                })
            })
            .await?;
        if called_off {
            entry.rest();
        }
        Ok(())
    }

    async fn record_update(
        self: &Arc<Self>,
        mut record: Record,
        document: Document,
        health: HealthUpdate,
    ) -> Result<()> {
        self.blocking(move |this| {
            record.summary = document.summary();
            this.db.write(|tx| {
                rows::set_document(tx, &record.id, &document)?;
                if health == HealthUpdate::OtherTest {
                    let is_checked = record.summary.health && record.status == Status::Running;
                    health::forget(tx, &record.id, is_checked)?;
                }
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
    if *after == (HostConfig { log: after.log.clone(), ..before.clone() }) {
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
