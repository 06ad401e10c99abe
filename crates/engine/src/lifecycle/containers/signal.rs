// SPDX-License-Identifier: Apache-2.0
//! Signals to a running container, and its terminal's size.

use std::{sync::Arc, time::Duration};

use berth::{failpoint, ids::Namespace};

use super::{Containers, Entry, Live, Phase, policy::Rested};
use crate::{
    domain::{record::Record, signal, state::Status},
    error::{Error, Kind, Result},
    shim::timeouts,
    store::meta::containers as rows,
};

/// What a stop did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The container has ended.
    Now,
    /// It didn't run.
    Already,
}

impl Containers {
    /// Sends a signal (empty is SIGKILL) to the container's first process.
    /// After SIGKILL and the container's stop signal it rests.
    ///
    /// # Errors
    /// `InvalidArgument` for no signal, `FailedPrecondition` when it isn't
    /// running, `Unavailable` when its shim doesn't answer.
    pub async fn kill(self: &Arc<Self>, record: &Record, name: &str) -> Result<()> {
        let number = if name.is_empty() { libc::SIGKILL } else { signal::parse(name)? };
        let entry = self.entry(&record.id);
        let ends = number == libc::SIGKILL || number == self.stop_signal(record).await?;
        if ends {
            let (_, rested) = self.want_stopped(&entry, record).await?;
            if rested == Rested::Yes {
                return self.tell(record, "kill", &[("signal", number.to_string())]).await;
            }
        }
        let live = running(&entry, record).map_err(|e| {
            Error::new(e.kind(), format!("cannot kill container: {}: {}", record.name, e.chain()))
        })?;
        self.send(&live, number).await?;
        self.tell(record, "kill", &[("signal", number.to_string())]).await?;
        if record.paused && ends {
            self.thaw(record).await?;
        }
        Ok(())
    }

    async fn stop_signal(self: &Arc<Self>, record: &Record) -> Result<i32> {
        let id = record.id.clone();
        self.blocking(move |this| Ok(this.read_document(&id)?.effective.stop_signal)).await
    }

    /// Sends the stop signal, waits, kills, and returns when it has ended; no
    /// policy starts it then. `name` and `timeout` (seconds, -1 for ever)
    /// override the container's.
    ///
    /// # Errors
    /// `InvalidArgument`, `Unavailable`.
    pub async fn stop(
        self: &Arc<Self>,
        record: &Record,
        name: &str,
        timeout: Option<i32>,
    ) -> Result<Stopped> {
        stop_options(name, timeout)?;
        let entry = self.entry(&record.id);
        let (now, rested) = self.want_stopped(&entry, record).await?;
        if rested == Rested::Yes {
            self.tell(record, "stop", &[]).await?;
            return Ok(Stopped::Now);
        }
        match now {
            Some(now) => self.stop_for_now(&now, name, timeout).await,
            None => Ok(Stopped::Already),
        }
    }

    /// As [`Self::stop`], without a word about what its user wants later.
    pub(super) async fn stop_for_now(
        self: &Arc<Self>,
        record: &Record,
        name: &str,
        timeout: Option<i32>,
    ) -> Result<Stopped> {
        let overridden = stop_options(name, timeout)?;
        let entry = self.entry(&record.id);
        if matches!(record.status, Status::Created | Status::Exited | Status::Removing) {
            return Ok(Stopped::Already);
        }
        let id = record.id.clone();
        let document = self.blocking(move |this| this.db.read(|c| rows::document(c, &id))).await?;
        let number = overridden.unwrap_or(document.effective.stop_signal);
        let default = i32::try_from(self.defaults.stop_timeout).unwrap_or(i32::MAX);
        let seconds = timeout.or(document.config.stop_timeout).unwrap_or(default);
        let ends = entry.view().ends;
        if matches!(entry.view().phase, Phase::Unreachable(None)) {
            // The engine's start is looking for its shim at this moment.
            drop(entry.gate.lock().await);
        }
        let live = match entry.view().phase {
            // One that doesn't answer is killed when its time is over.
            Phase::Running(live) | Phase::Unreachable(Some(live)) => live,
            Phase::Unreachable(None) => return Err(unreachable(record)),
            _ => return Ok(Stopped::Already),
        };
        if let Err(e) = self.send(&live, number).await
            && e.kind() != Kind::FailedPrecondition
        {
            tracing::warn!(id = %record.id, error = e.chain(), "the stop signal was not delivered; killing");
        } else {
            failpoint::hit("stop.signalled")?;
            if record.paused {
                self.thaw_for_stop(record).await;
            }
            let grace = u64::try_from(seconds).map(Duration::from_secs).ok();
            if ended(&entry, ends, grace).await {
                failpoint::hit("stop.done")?;
                self.tell(record, "stop", &[]).await?;
                return Ok(Stopped::Now);
            }
        }
        self.terminate(&entry, &live, ends).await?;
        failpoint::hit("stop.done")?;
        self.tell(record, "stop", &[]).await?;
        Ok(Stopped::Now)
    }

    /// A frozen process can't do as it is told. One that can't be thawed is
    /// killed when its time is over.
    async fn thaw_for_stop(self: &Arc<Self>, record: &Record) {
        if let Err(e) = self.thaw(record).await {
            tracing::warn!(id = %record.id, error = e.chain(), "let a container go on that is to stop");
        }
    }

    /// Kills, through the shim or without it, and waits for the end.
    pub(super) async fn terminate(
        self: &Arc<Self>,
        entry: &Entry,
        live: &Arc<Live>,
        ends: u64,
    ) -> Result<()> {
        let asked = self.send(live, libc::SIGKILL).await;
        if asked.is_ok() && ended(entry, ends, Some(timeouts::KILL)).await {
            return Ok(());
        }
        // Without the shim, which then is of no use any more.
        entry.doom();
        let shared = Arc::clone(live);
        self.blocking(move |_| shared.destroy()).await?;
        if ended(entry, ends, Some(timeouts::KILL)).await {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable, format!("container {} could not be killed", live.id)))
    }

    /// A shim that doesn't answer doesn't save its container from SIGKILL.
    async fn send(self: &Arc<Self>, live: &Arc<Live>, number: i32) -> Result<()> {
        match live.task.kill(number.unsigned_abs()).await {
            Err(e) if e.kind() == Kind::Unavailable && number == libc::SIGKILL => {
                self.entry(&live.id).doom();
                let shared = Arc::clone(live);
                self.blocking(move |_| shared.destroy()).await
            }
            Err(e) if e.kind() == Kind::NotFound => Err(not_running(live.id.as_ref())),
            sent => sent,
        }
    }

    /// Sets the size of the container's terminal.
    ///
    /// # Errors
    /// `FailedPrecondition` when it isn't running or has none.
    pub async fn resize(self: &Arc<Self>, record: &Record, rows: u32, columns: u32) -> Result<()> {
        let fits = |n: u32| u16::try_from(n).is_ok();
        if !fits(rows) || !fits(columns) {
            return Err(Error::new(Kind::InvalidArgument, format!("invalid terminal size {rows}×{columns}")));
        }
        let entry = self.entry(&record.id);
        running(&entry, record)?.task.resize(rows, columns).await.map_err(|e| match e.kind() {
            Kind::Unavailable => e,
            _ => Error::new(Kind::FailedPrecondition, "cannot resize").with_source(e),
        })
    }

    /// Records that something was done, off the async threads.
    pub(in crate::lifecycle) async fn tell(
        self: &Arc<Self>,
        record: &Record,
        action: &'static str,
        more: &[(&'static str, String)],
    ) -> Result<()> {
        let (record, more) = (record.clone(), more.to_vec());
        self.blocking(move |this| this.note(&record, action, &more)).await
    }
}

impl Containers {
    /// The shim of a container that runs.
    pub(in crate::lifecycle) fn running(&self, record: &Record) -> Result<Arc<Live>> {
        running(&self.entry(&record.id), record)
    }

    /// The shims of all of a tenant's containers that run.
    pub(in crate::lifecycle) fn all_running(&self, namespace: &Namespace) -> Vec<Arc<Live>> {
        let all = self.entries().values().filter_map(|entry| entry.running()).collect::<Vec<_>>();
        all.into_iter().filter(|live| live.namespace == *namespace).collect()
    }
}

/// The signal that is to stop it, where one was named.
fn stop_options(name: &str, timeout: Option<i32>) -> Result<Option<i32>> {
    if timeout.is_some_and(|t| t < -1) {
        return Err(Error::new(Kind::InvalidArgument, "invalid stop timeout: must be -1 or more"));
    }
    if name.is_empty() { Ok(None) } else { signal::parse(name).map(Some) }
}

/// The shim of a container that runs.
pub(super) fn running(entry: &Entry, record: &Record) -> Result<Arc<Live>> {
    entry.running().ok_or_else(|| match entry.view().phase {
        Phase::Unreachable(_) => unreachable(record),
        _ if record.is_restarting() => {
            let what = format!("Container {} is restarting, wait until the container is running", record.id);
            Error::new(Kind::FailedPrecondition, what)
        }
        _ => not_running(record.id.as_str()),
    })
}

fn not_running(id: &str) -> Error {
    Error::new(Kind::FailedPrecondition, format!("container {id} is not running"))
}

pub(in crate::lifecycle) fn unreachable(record: &Record) -> Error {
    Error::new(Kind::Unavailable, format!("the shim of container {} does not answer", record.id))
}

/// Waits until the container has ended once more than `ends` times.
async fn ended(entry: &Entry, ends: u64, limit: Option<Duration>) -> bool {
    let mut view = entry.subscribe();
    let end = view.wait_for(|view| view.ends != ends || matches!(view.phase, Phase::Removed));
    match limit {
        None => end.await.is_ok(),
        Some(limit) => matches!(tokio::time::timeout(limit, end).await, Ok(Ok(_))),
    }
}
