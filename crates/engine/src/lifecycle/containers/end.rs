// SPDX-License-Identifier: Apache-2.0
//! The end of a container: noticed, explained, recorded, told; then, off the
//! critical path, everything that it held is freed.

use std::sync::Arc;

use berth::{bundle, failpoint};

use super::{Containers, Entry, Live, event, logging, policy};
use crate::{
    domain::{
        log::LogConfig,
        record::Record,
        restart::Moment,
        state::{Exit, ExitEvidence, WaitAnswer},
    },
    error::{Error, Kind, Result},
    shim::{cgroup, task::Task, timeouts},
    store::meta::{containers as rows, events, logs},
};

/// Whether the shim is still there to clean up after its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shim {
    Alive,
    Dead,
}

impl Containers {
    /// Looks after a running container until it has ended. `log` is how its
    /// log is kept, by who knows that already.
    pub(super) fn watch(
        self: &Arc<Self>,
        entry: Arc<Entry>,
        record: Record,
        live: Arc<Live>,
        log: Option<&LogConfig>,
    ) {
        self.watch_health(&entry, &record, &live);
        self.watch_log(&record, &live, log.map(LogConfig::compress));
        if log.is_none_or(|log| log.driver.forwards()) {
            self.forward_log(&entry, &record);
        }
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let (exit, shim) = this.end_of(&live).await;
            let _gate = entry.gate.lock().await;
            failpoint::pass("end.noticed");
            if shim == Shim::Alive {
                this.tell_ended_execs(&live).await;
            }
            this.settle(&entry, &record, exit, Moment::Ended).await;
            failpoint::pass("end.recorded");
            this.clean_up(&entry, &record, Some(live), shim).await;
        });
    }

    /// Waits for the container's end and finds out how it was.
    async fn end_of(self: &Arc<Self>, live: &Arc<Live>) -> (Exit, Shim) {
        let mut task = live.task.clone();
        loop {
            let lost = tokio::select! {
                biased;
                answer = task.wait() => match answer {
                    Ok(answer) => return (self.reported(live, answer).await, Shim::Alive),
                    Err(e) => e,
                },
                _ = live.shim.ended() => return (self.shim_died(live).await, Shim::Dead),
            };
            // A shim that dies closes its connection first. One that lives is
            // asked again.
            if tokio::time::timeout(timeouts::RETRY, live.shim.ended()).await.is_ok() {
                return (self.shim_died(live).await, Shim::Dead);
            }
            tracing::warn!(id = %live.id, error = lost.chain(), "the connection to a shim was lost");
            if let Ok(again) = Task::connect(live.bundle.dir(), &live.id).await {
                task = again;
            }
        }
    }

    /// The shim has said how; its record says more.
    async fn reported(self: &Arc<Self>, live: &Arc<Live>, answer: WaitAnswer) -> Exit {
        let live = Arc::clone(live);
        let record = self.blocking(move |_| live.bundle.exit()).await;
        let record = record.unwrap_or_else(|e| {
            tracing::warn!(error = e.chain(), "the exit record is not readable; the shim's answer counts");
            None
        });
        ExitEvidence { record, answer: Some(answer), ..ExitEvidence::default() }.merge()
    }

    /// Kills what the shim left, and asks the kernel how the first process
    /// ended.
    pub(super) async fn shim_died(self: &Arc<Self>, live: &Arc<Live>) -> Exit {
        let noticed_at = bundle::now_nanos();
        let shared = Arc::clone(live);
        let swept = self
            .blocking(move |_| {
                let record = shared.bundle.exit()?;
                let messages = shared.bundle.shim_messages();
                let killed = cgroup::destroy(&shared.cgroup);
                Ok((record, messages, killed))
            })
            .await;
        let (record, messages, killed) = swept.unwrap_or_else(|e| (None, String::new(), Err(e)));
        if let Err(e) = &killed {
            tracing::error!(id = %live.id, error = e.chain(), "kill what a dead shim left");
        }
        let on_purpose = self.entry(&live.id).was_doomed();
        match record {
            None if on_purpose => tracing::info!(id = %live.id, "a container was killed with its shim"),
            None => tracing::error!(id = %live.id, messages, "a shim has died"),
            Some(_) => {}
        }
        let mut evidence = ExitEvidence {
            record,
            killed: killed.is_ok() && live.init.get().is_some(),
            noticed_at,
            reason: if on_purpose {
                "the container was killed with its shim, which did not answer".to_owned()
            } else {
                "the container's shim has died".to_owned()
            },
            ..ExitEvidence::default()
        };
        if evidence.record.is_none()
            && let Some(init) = live.init.get()
        {
            // Killed with its shim, if it hadn't ended before. What it was is
            // decided by its wait status; a time-out leaves it unknown.
            drop(tokio::time::timeout(timeouts::KILLED, init.ended()).await);
            evidence.wait_status = init.wait_status().ok().flatten();
        }
        evidence.merge()
    }

    /// Records the end, and what its policy makes of it, and tells everybody.
    /// The gate is held.
    pub(super) async fn settle(self: &Arc<Self>, entry: &Entry, record: &Record, exit: Exit, moment: Moment) {
        let (row, end) = (record.clone(), exit.clone());
        // Who keeps it starts it himself.
        let kept = entry.is_kept();
        let bundle = self.bundle_path(&record.namespace, &record.id);
        let recorded = self
            .blocking(move |this| {
                let dropped = logging::dropped(&bundle);
                this.db.write(|tx| {
                    if !rows::set_exited(tx, &row.id, &end)? {
                        return Ok(());
                    }
                    logs::add_dropped(tx, &row.id, &dropped)?;
                    // Its name may be another than at its start.
                    let row = rows::any(tx, &row.id)?.unwrap_or(row);
                    if !kept {
                        policy::judge(tx, &row, moment, policy::ran(&row))?;
                    }
                    if end.oom_killed {
                        events::append(tx, &event(&row, "oom", &[]))?;
                    }
                    events::append(tx, &event(&row, "die", &[("exitCode", end.code.to_string())]))
                })?;
                this.events.committed();
                Ok(())
            })
            .await;
        if let Err(e) = recorded {
            // The bundle keeps the exit record: the next engine tries again.
            tracing::error!(id = %record.id, error = e.chain(), "record the end of a container");
        }
        entry.ended(exit);
    }

    /// Frees what the container held. The gate is held.
    pub(super) async fn clean_up(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Record,
        live: Option<Arc<Live>>,
        shim: Shim,
    ) {
        if let Some(live) = &live
            && shim == Shim::Alive
            && let Err(e) = dismiss(live).await
        {
            tracing::warn!(id = %record.id, error = e.chain(), "a shim did not end as asked and was killed");
        }
        failpoint::pass("end.dismissed");
        let row = record.clone();
        let swept = self
            .blocking(move |this| {
                this.sweep(&row)?;
                failpoint::hit("end.swept")?;
                this.db.write(|tx| rows::set_shim(tx, &row.id, None))
            })
            .await;
        if let Err(e) = swept {
            tracing::error!(id = %record.id, error = e.chain(), "free what a container held");
        }
        if record.summary.auto_remove && !entry.is_kept() {
            return self.remove_automatically(entry, record).await;
        }
        self.follow_policy(entry, record).await;
    }
}

/// Has the shim free what it holds and end; kills it when it doesn't.
async fn dismiss(live: &Live) -> Result<()> {
    let asked = async {
        live.task.delete().await?;
        live.task.shutdown().await
    };
    let asked = asked.await;
    let ended = tokio::time::timeout(timeouts::SHUTDOWN, live.shim.ended()).await;
    if ended.is_err() {
        live.shim.kill()?;
        if tokio::time::timeout(timeouts::KILLED, live.shim.ended()).await.is_err() {
            return Err(Error::new(Kind::Unavailable, "the shim survives SIGKILL"));
        }
        asked?;
        return Err(Error::new(Kind::Unavailable, "the shim did not end after Shutdown"));
    }
    asked
}
