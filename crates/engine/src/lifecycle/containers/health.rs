// SPDX-License-Identifier: Apache-2.0
//! Watching a container's health: when a probe is due it is made, what comes
//! of it is recorded, and a container that has become unhealthy is dealt with
//! as was asked for.
//!
//! What is known is in the database, so that an engine that starts later goes
//! on where this one ended.

use std::sync::Arc;

use berth::bundle;
use tokio::sync::watch;

use super::{Containers, Entry, Live, Phase, event};
use crate::{
    domain::{
        container::Document,
        health::{Health, OnFailure, Probed, State, Status as Known},
        record::Record,
        state::Status,
    },
    error::{Error, Kind, Result},
    store::meta::{containers as rows, events, health},
};

/// What a probe has come to.
struct Judged {
    state: State,
    changed: bool,
}

impl Containers {
    /// Looks after the health of a container that runs, until it doesn't.
    pub(super) fn watch_health(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record, live: &Arc<Live>) {
        if !record.summary.health {
            return;
        }
        let (this, entry, record, live) =
            (Arc::clone(self), Arc::clone(entry), record.clone(), Arc::clone(live));
        let checks = entry.health_checks();
        tokio::spawn(async move {
            let mut view = entry.subscribe();
            let ends = view.borrow_and_update().ends;
            let over = view.wait_for(|view| view.ends != ends || matches!(view.phase, Phase::Removed));
            let unhealthy = tokio::select! {
                biased;
                _ = over => return,
                unhealthy = this.probe_until_unhealthy(&record, &live, checks) => unhealthy,
            };
            match unhealthy {
                Ok(Some(action)) => this.deal_with(&entry, &record, &live, action).await,
                Ok(None) => {}
                Err(e) => tracing::error!(id = %record.id, error = e.chain(), "watch a container's health"),
            }
        });
    }

    /// Returns when something is to be done about the container; nothing is
    /// for one that doesn't run as it did, or is looked after by another.
    async fn probe_until_unhealthy(
        self: &Arc<Self>,
        record: &Record,
        live: &Arc<Live>,
        mut checks: watch::Receiver<()>,
    ) -> Result<Option<OnFailure>> {
        let Some((document, check)) = self.health_check(record).await? else { return Ok(None) };
        let Some(mut row) = self.reload(record).await? else { return Ok(None) };
        let started_at = row.started_at;
        let mut state = self.health(record).await?.unwrap_or_default();
        loop {
            let wait = state.wait(&check, started_at, bundle::now_nanos());
            if tokio::time::timeout(wait, checks.changed()).await.is_ok() {
                return Ok(None);
            }
            match self.reload(record).await? {
                Some(now) if now.status == Status::Running && now.started_at == started_at => row = now,
                _ => return Ok(None),
            }
            if row.paused {
                // As long as an interval, then it is looked at again.
                if tokio::time::timeout(check.interval, checks.changed()).await.is_ok() {
                    return Ok(None);
                }
                continue;
            }
            let probed = self.probe(live, &document, &check).await;
            // One that was frozen meanwhile couldn't answer.
            let paused = self.reload(record).await?.is_some_and(|now| now.paused);
            if paused && probed.exit_code != 0 {
                continue;
            }
            // It is another check's turn now.
            if checks.has_changed().unwrap_or(true) {
                return Ok(None);
            }
            let Some(judged) = self.record_probe(record, started_at, probed, &check).await? else {
                return Ok(None);
            };
            let unhealthy = judged.changed && judged.state.status == Known::Unhealthy;
            state = judged.state;
            if unhealthy && check.on_failure != OnFailure::None {
                return Ok(Some(check.on_failure));
            }
        }
    }

    /// Probes a container now, and remembers it as any other probe.
    ///
    /// # Errors
    /// `FailedPrecondition` when it has no check or doesn't run.
    pub async fn probe_now(self: &Arc<Self>, record: &Record) -> Result<State> {
        let none = || {
            let what = format!("container {} has no defined healthcheck", record.id);
            Error::new(Kind::FailedPrecondition, what)
        };
        let live = self.running(record)?;
        let (document, check) = self.health_check(record).await?.ok_or_else(none)?;
        let probed = self.probe(&live, &document, &check).await;
        let ended =
            || Error::new(Kind::FailedPrecondition, format!("container {} is not running", record.id));
        let judged = self.record_probe(record, record.started_at, probed, &check).await?;
        judged.map(|judged| judged.state).ok_or_else(ended)
    }

    async fn health_check(self: &Arc<Self>, record: &Record) -> Result<Option<(Document, Health)>> {
        let id = record.id.clone();
        let document = self.blocking(move |this| this.read_document(&id)).await?;
        let check = document.effective.health.as_ref().map(|config| config.in_force());
        Ok(check.transpose()?.flatten().map(|check| (document, check)))
    }

    async fn health(self: &Arc<Self>, record: &Record) -> Result<Option<State>> {
        let id = record.id.clone();
        self.blocking(move |this| this.db.read(|c| health::get(c, &id))).await
    }

    /// `None` when it isn't the run any more that was probed.
    async fn record_probe(
        self: &Arc<Self>,
        record: &Record,
        started_at: u64,
        probed: Probed,
        check: &Health,
    ) -> Result<Option<Judged>> {
        let (id, check) = (record.id.clone(), check.clone());
        self.blocking(move |this| {
            let judged = this.db.write(|tx| {
                let row = rows::any(tx, &id)?;
                let Some(row) =
                    row.filter(|row| row.status == Status::Running && row.started_at == started_at)
                else {
                    return Ok(None);
                };
                let before = health::get(tx, &id)?.unwrap_or_default();
                let known = before.status;
                let state = before.after(probed, &check, started_at);
                health::set(tx, &id, &state)?;
                let changed = known != state.status;
                if changed {
                    events::append(tx, &event(&row, state.status.event(), &[]))?;
                }
                Ok(Some(Judged { state, changed }))
            })?;
            if judged.as_ref().is_some_and(|judged| judged.changed) {
                this.events.committed();
            }
            Ok(judged)
        })
        .await
    }

    async fn deal_with(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Record,
        live: &Arc<Live>,
        action: OnFailure,
    ) {
        tracing::info!(id = %record.id, action = action.as_str(), "a container has become unhealthy");
        let done = match action {
            OnFailure::None => Ok(()),
            OnFailure::Kill => {
                let ends = entry.view().ends;
                self.terminate(entry, live, ends).await
            }
            OnFailure::Stop => match self.reload(record).await {
                Ok(Some(now)) => self.stop(&now, "", None).await.map(drop),
                Ok(None) => Ok(()),
                Err(e) => Err(e),
            },
            OnFailure::Restart => match self.reload(record).await {
                Ok(Some(now)) => self.restart(now, String::new(), None).await.map(drop),
                Ok(None) => Ok(()),
                Err(e) => Err(e),
            },
        };
        match done {
            // Whoever has removed it has dealt with it.
            Ok(()) => {}
            Err(e) if e.kind() == Kind::NotFound => {}
            Err(e) => {
                tracing::error!(id = %record.id, error = e.chain(), "deal with an unhealthy container");
            }
        }
    }
}
