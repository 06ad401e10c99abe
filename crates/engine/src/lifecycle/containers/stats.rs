// SPDX-License-Identifier: Apache-2.0
//! What containers use, looked at once a second: all shims are asked at the
//! same time, each with a deadline, so that a stuck one costs its own line.

use std::{collections::HashMap, sync::Arc, time::Duration};

use berth::{
    bundle,
    ids::{ContainerId, Namespace},
};
use tokio::{sync::mpsc, task::JoinSet, time};

use super::Containers;
use crate::{
    domain::{
        record::Record,
        state::Shown,
        usage::{HostCpu, Usage, cpu_percent},
    },
    error::{Context as _, Error, Result},
    kernel::host,
    store::meta::containers::{self as rows, Scope},
};

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(1);

/// Whose counters, and how often.
#[derive(Debug, Clone)]
pub struct StatsOptions {
    /// The tenant.
    pub namespace: Namespace,
    /// By id, name or prefix; empty is all that run.
    pub containers: Vec<String>,
    /// All, also those that don't run.
    pub all: bool,
    /// Round after round.
    pub stream: bool,
    /// Begin at once, without a first look to compare with.
    pub one_shot: bool,
}

/// A line of a round.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Whose.
    pub record: Record,
    /// As users see it.
    pub status: Shown,
    /// As the request named it, else the id.
    pub reference: String,
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// Only of one that runs and answers.
    pub counted: Option<Counted>,
}

/// What one container used.
#[derive(Debug, Clone, Copy)]
pub struct Counted {
    /// Its counters; the limit of memory is a real one.
    pub usage: Usage,
    /// The host's at the same time.
    pub host: HostCpu,
    /// Since the round before.
    pub cpu_percent: f64,
}

/// Who is looked at.
#[derive(Debug)]
enum Whom {
    /// These, as they were named.
    Named(Vec<(Record, String)>),
    /// Whoever there is.
    Everybody(Scope),
}

type Last = HashMap<ContainerId, (Usage, HostCpu)>;

impl Containers {
    /// What containers use, in rounds. Dropping the result ends them.
    ///
    /// # Errors
    /// `NotFound` for a container that was named.
    pub async fn stats(
        self: &Arc<Self>,
        options: StatsOptions,
    ) -> Result<mpsc::Receiver<Result<Vec<Measured>>>> {
        let whom = self.whom(&options).await?;
        let (rounds, receiver) = mpsc::channel(1);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let work = this.rounds(&options, whom, &rounds);
            let ended = tokio::select! {
                ended = work => ended,
                () = rounds.closed() => Ok(()),
            };
            if let Err(e) = ended {
                // The client may have gone: then nobody wants to know.
                drop(rounds.send(Err(e)).await);
            }
        });
        Ok(receiver)
    }

    async fn whom(self: &Arc<Self>, options: &StatsOptions) -> Result<Whom> {
        if options.containers.is_empty() {
            return Ok(Whom::Everybody(if options.all { Scope::All } else { Scope::Running }));
        }
        let mut named = Vec::new();
        for reference in &options.containers {
            named.push((self.find(&options.namespace, reference).await?, reference.clone()));
        }
        Ok(Whom::Named(named))
    }

    async fn rounds(
        self: &Arc<Self>,
        options: &StatsOptions,
        whom: Whom,
        rounds: &mpsc::Sender<Result<Vec<Measured>>>,
    ) -> Result<()> {
        let whom = Arc::new(whom);
        let mut last = Last::new();
        let mut tick = time::interval(PERIOD);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut first = !options.one_shot;
        loop {
            tick.tick().await;
            let round = self.round(options, &whom, &mut last).await?;
            if std::mem::take(&mut first) {
                continue;
            }
            if rounds.send(Ok(round)).await.is_err() || !options.stream {
                return Ok(());
            }
        }
    }

    async fn round(
        self: &Arc<Self>,
        options: &StatsOptions,
        whom: &Arc<Whom>,
        last: &mut Last,
    ) -> Result<Vec<Measured>> {
        let (namespace, whom) = (options.namespace.clone(), Arc::clone(whom));
        let (there, host, memory) = self
            .blocking(move |this| {
                let host = host::cpu().context("read the host's CPU time")?;
                let memory = host::memory().context("ask the kernel for the memory's size")?;
                Ok((this.there(&namespace, &whom)?, host, memory))
            })
            .await?;
        let mut asked = JoinSet::new();
        for (index, (record, reference)) in there.into_iter().enumerate() {
            let this = Arc::clone(self);
            asked.spawn(async move { (index, this.measure(record, reference).await) });
        }
        let mut found = asked.join_all().await;
        found.sort_by_key(|(index, _)| *index);
        let before = std::mem::take(last);
        Ok(found
            .into_iter()
            .map(|(_, (line, usage))| {
                let id = line.record.id.clone();
                let counted = usage.map(|mut usage| {
                    last.insert(id.clone(), (usage, host));
                    let share = |(then, at): &(Usage, HostCpu)| cpu_percent((then, *at), (&usage, host));
                    let cpu_percent = before.get(&id).map_or(0.0, share);
                    usage.memory_limit = match usage.memory_limit {
                        0 => memory,
                        limit => limit.min(memory),
                    };
                    Counted { usage, host, cpu_percent }
                });
                Measured { counted, ..line }
            })
            .collect())
    }

    /// Those of whom that are there now. Blocks.
    fn there(&self, namespace: &Namespace, whom: &Whom) -> Result<Vec<(Record, String)>> {
        self.db.read(|c| match whom {
            Whom::Everybody(scope) => {
                let found = rows::list(c, namespace, *scope)?;
                Ok(found
                    .into_iter()
                    .map(|record| {
                        let reference = record.id.to_string();
                        (record, reference)
                    })
                    .collect())
            }
            Whom::Named(named) => {
                let mut found = Vec::new();
                for (record, reference) in named {
                    if let Some(record) = rows::get(c, namespace, record.id.as_str())? {
                        found.push((record, reference.clone()));
                    }
                }
                Ok(found)
            }
        })
    }

    /// One line, and its counters where there are any.
    async fn measure(self: &Arc<Self>, record: Record, reference: String) -> (Measured, Option<Usage>) {
        let usage = match self.entry(&record.id).running() {
            None => None,
            Some(live) => live.task.stats().await.map_err(|e| silent(&record, &e)).ok(),
        };
        let status = self.shown(&record);
        let line = Measured { record, status, reference, at: bundle::now_nanos(), counted: None };
        (line, usage)
    }
}

/// It may just be ending; the table shows that there was no answer.
fn silent(record: &Record, error: &Error) {
    tracing::debug!(id = %record.id, error = error.chain(), "a container was not counted");
}
