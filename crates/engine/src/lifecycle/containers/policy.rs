// SPDX-License-Identifier: Apache-2.0
//! Restart policies, carried out: what [`crate::domain::restart`] decides is
//! recorded with the end that it is about, and then waited for.
//!
//! The row is the only memory of a restart that is to come: a task that waits
//! looks at it again under the gate, and starts nothing that anybody has
//! thought better of meanwhile.

use std::{sync::Arc, time::Duration};

use berth::bundle;
use futures_util::{FutureExt as _, future::BoxFuture};
use rusqlite::Transaction;

use super::{Containers, Entry, Phase};
use crate::{
    domain::{
        record::Record,
        restart::{End, Moment},
        state::Status,
    },
    error::Result,
    store::meta::containers as rows,
};

/// So many containers are started by their policies at once: a host that has
/// just booted has other things to do.
pub(super) const AT_ONCE: usize = 8;

/// Records what is to become of a container whose end is recorded in the same
/// transaction; `ran` is from its start to its end.
pub(super) fn judge(tx: &Transaction<'_>, row: &Record, moment: Moment, ran: Duration) -> Result<()> {
    let end = End { code: row.exit.code, ran };
    match row.summary.restart.decide(&row.restarts, moment, end) {
        Some(wait) => rows::set_restarts(tx, &row.id, &row.restarts.after(wait, bundle::now_nanos())),
        None => Ok(()),
    }
}

/// How long a container ran that has ended.
pub(super) fn ran(row: &Record) -> Duration {
    Duration::from_nanos(row.exit.at.saturating_sub(row.started_at))
}

impl Containers {
    /// Judges a container that the engine's start has found at rest. The gate
    /// is held.
    pub(super) async fn judge_at_start(self: &Arc<Self>, record: &Record) -> Result<()> {
        let id = record.id.clone();
        self.blocking(move |this| {
            this.db.write(|tx| match rows::any(tx, &id)? {
                // One that never came up isn't what a policy is about.
                Some(row) if row.status == Status::Exited && row.started_at != 0 && !row.is_restarting() => {
                    judge(tx, &row, Moment::EngineStart, ran(&row))
                }
                _ => Ok(()),
            })
        })
        .await
    }

    /// Waits, in the background, for the restart that is recorded. The gate is
    /// held.
    pub(super) async fn follow_policy(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) {
        match self.reload(record).await {
            Ok(Some(row)) if row.is_restarting() => {
                entry.set_due(row.restarts.due);
                tokio::spawn(Arc::clone(self).restart_when_due(Arc::clone(entry), row));
            }
            Ok(_) => {}
            Err(e) => {
                tracing::error!(id = %record.id, error = e.chain(), "look for a restart that is to come");
            }
        }
    }

    /// Boxed: a start that fails has its restart waited for again.
    fn restart_when_due(self: Arc<Self>, entry: Arc<Entry>, record: Record) -> BoxFuture<'static, ()> {
        async move {
            let due = record.restarts.due;
            let mut view = entry.subscribe();
            let dropped = view.wait_for(|view| view.due != due || matches!(view.phase, Phase::Removed));
            let left = record.restarts.left(bundle::now_nanos());
            if tokio::time::timeout(left, dropped).await.is_ok() {
                return;
            }
            let Ok(_turn) = self.restarting.acquire().await else { return };
            if let Err(e) = self.start_by_policy(&entry, &record).await {
                tracing::warn!(id = %record.id, error = e.chain(), "start a container by its restart policy");
            }
        }
        .boxed()
    }

    /// The user wants the container to rest: no policy starts it from now on.
    /// The container's record as it is now, once nobody is starting it; and
    /// whether that ended a wait.
    pub(super) async fn want_stopped(
        self: &Arc<Self>,
        entry: &Entry,
        record: &Record,
    ) -> Result<(Option<Record>, Rested)> {
        let id = record.id.clone();
        let before = self
            .blocking(move |this| {
                this.db.write(|tx| {
                    let row = rows::any(tx, &id)?;
                    rows::set_stopped(tx, &id)?;
                    Ok(row)
                })
            })
            .await?;
        let Some(before) = before else { return Ok((None, Rested::No)) };
        if before.status == Status::Starting {
            drop(entry.gate.lock().await);
            return Ok((self.reload(record).await?, Rested::No));
        }
        if !before.is_restarting() {
            return Ok((Some(before), Rested::No));
        }
        entry.rest();
        Ok((Some(before), Rested::Yes))
    }
}

/// Whether a wait for a restart has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rested {
    Yes,
    No,
}
