// SPDX-License-Identifier: Apache-2.0
//! What is told of processes that have joined a container: `exec_start`, then
//! `exec_die`, each once, whatever becomes of the engine meanwhile, and before
//! the `die` of a container that has ended with them.
//!
//! Within an engine, whoever tells takes it from [`Untold`] in the transaction
//! that records it. Between two engines the log of events is what decides: the
//! shim knows what has happened, and what is not in the log was not told. An
//! event that may have been forgotten by now is not told again.
//!
//! They are started and watched by `lifecycle::execs`.

use std::{
    collections::{BTreeMap, HashSet},
    slice,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use berth::{api::shim::ExecProcess, ids::ExecId};
use rusqlite::{Connection, Transaction};

use super::{Containers, Live, event};
use crate::{
    domain::{record::Record, state::WaitAnswer},
    error::Result,
    store::meta::{containers as rows, events},
};

/// What is to be told of a process next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::lifecycle) enum Next {
    /// That it has started.
    Start,
    /// That it has ended, once it has.
    Die,
}

/// The processes of a container of which something is still to be told.
#[derive(Debug, Default)]
pub(in crate::lifecycle) struct Untold(Mutex<BTreeMap<ExecId, Next>>);

impl Untold {
    /// Something is to be told of this one.
    pub(in crate::lifecycle) fn expect(&self, id: &ExecId, next: Next) {
        self.lock().insert(id.clone(), next);
    }

    /// It has never been started: nothing is to be told of it.
    pub(in crate::lifecycle) fn forget(&self, id: &ExecId) {
        self.lock().remove(id);
    }

    /// Whether there is anything to tell of one that has ended, or has not.
    fn is_due(&self, id: &ExecId, end: Option<&WaitAnswer>) -> bool {
        self.lock().get(id).is_some_and(|next| end.is_some() || *next == Next::Start)
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Appends what is still to be told of one.
    fn tell(&self, tx: &Transaction<'_>, row: &Record, id: &ExecId, end: Option<&WaitAnswer>) -> Result<()> {
        let mut all = self.lock();
        let Some(next) = all.get(id).copied() else { return Ok(()) };
        let exec = ("execID", id.to_string());
        if next == Next::Start {
            events::append(tx, &event(row, "exec_start", slice::from_ref(&exec)))?;
        }
        let Some(end) = end else {
            all.insert(id.clone(), Next::Die);
            return Ok(());
        };
        let code = ("exitCode", end.exit_code.to_string());
        // It may be long ago: the event's own time is that of its telling.
        let at = jiff::Timestamp::from_nanosecond(end.at.into()).unwrap_or_default();
        events::append(tx, &event(row, "exec_die", &[exec, code, ("finishedAt", at.to_string())]))?;
        all.remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecId, Next>> {
        // Every change is one insert or remove: a panic can't tear it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was told of execs, as far as that is kept.
#[derive(Debug)]
pub(in crate::lifecycle) struct Told {
    /// What happened from then on is kept; nanoseconds since the Unix epoch.
    kept_since: u64,
    started: HashSet<String>,
    ended: HashSet<String>,
}

impl Told {
    /// Reads all events.
    ///
    /// # Errors
    /// Those of the database.
    fn read(db: &Connection) -> Result<Self> {
        let mut told = Self::since(events::kept_since(db)?);
        events::of_execs(db, |one| told.add(&one))?;
        Ok(told)
    }

    /// Nothing yet, of what was kept from then on.
    pub(in crate::lifecycle) fn since(kept_since: u64) -> Self {
        Self { kept_since, started: HashSet::new(), ended: HashSet::new() }
    }

    /// What this event says.
    pub(in crate::lifecycle) fn add(&mut self, one: &events::OfExec) {
        let set = if one.ended { &mut self.ended } else { &mut self.started };
        set.insert(one.exec.clone());
    }

    /// Where nothing can be known, nothing is told a second time.
    fn unknown() -> Self {
        Self::since(u64::MAX)
    }

    /// What is still to be told of a process that was started; `None` when
    /// all is, or can't be known any more.
    pub(in crate::lifecycle) fn next(&self, exec: &ExecProcess) -> Option<Next> {
        let told = |set: &HashSet<String>, at: u64| at < self.kept_since || set.contains(&exec.exec_id);
        if exec.exited_at != 0 && told(&self.ended, exec.exited_at) {
            return None;
        }
        Some(if told(&self.started, exec.started_at) { Next::Die } else { Next::Start })
    }

    /// Whether its end was told; `false` as well when that isn't known any more.
    pub(in crate::lifecycle) fn has_ended(&self, exec: &ExecProcess) -> bool {
        self.ended.contains(&exec.exec_id)
    }
}

/// [`Told`], read when it is needed first: most starts of an engine find no
/// exec.
pub(in crate::lifecycle) type ToldOnce = tokio::sync::OnceCell<Told>;

impl Containers {
    /// Tells what is still to be told of a process up to now.
    pub(in crate::lifecycle) async fn tell_exec(
        self: &Arc<Self>,
        live: &Arc<Live>,
        id: &ExecId,
        end: Option<WaitAnswer>,
    ) {
        self.tell_execs(live, vec![(id.clone(), end)]).await;
    }

    /// Tells of the processes that have ended and whose watchers haven't come
    /// to it. The container's own end is to be told next.
    pub(super) async fn tell_ended_execs(self: &Arc<Self>, live: &Arc<Live>) {
        if live.untold.is_empty() {
            return;
        }
        match live.task.execs().await {
            Ok(all) => self.tell_execs(live, ended(&all)).await,
            Err(e) => tracing::warn!(id = %live.id, error = e.chain(), "ask how execs have ended"),
        }
    }

    /// Finds out what earlier engines have not told of these processes, and
    /// tells of those that have ended.
    pub(in crate::lifecycle) async fn catch_up_on_execs(
        self: &Arc<Self>,
        live: &Arc<Live>,
        execs: &[ExecProcess],
        told: &ToldOnce,
    ) {
        let unknown = Told::unknown();
        let read = || self.blocking(|this| this.db.read(Told::read));
        let told = told.get_or_try_init(read).await.unwrap_or_else(|e| {
            tracing::warn!(id = %live.id, error = e.chain(), "read what was told of execs");
            &unknown
        });
        for exec in execs {
            if let (Some(next), Ok(id)) = (told.next(exec), exec.exec_id.parse()) {
                live.untold.expect(&id, next);
            }
        }
        self.tell_execs(live, ended(execs)).await;
    }

    async fn tell_execs(self: &Arc<Self>, live: &Arc<Live>, mut all: Vec<(ExecId, Option<WaitAnswer>)>) {
        all.retain(|(id, end)| live.untold.is_due(id, end.as_ref()));
        if all.is_empty() {
            return;
        }
        let of = Arc::clone(live);
        let told = self.blocking(move |this| {
            this.db.write(|tx| {
                // Of a container that is gone nothing more is told. Its name
                // may be another than at its start.
                let Some(row) = rows::any(tx, &of.id)? else { return Ok(()) };
                all.iter().try_for_each(|(id, end)| of.untold.tell(tx, &row, id, end.as_ref()))
            })?;
            this.events.committed();
            Ok(())
        });
        if let Err(e) = told.await {
            tracing::warn!(id = %live.id, error = e.chain(), "record what happened to an exec");
        }
    }
}

/// Those that have ended, in that order.
fn ended(all: &[ExecProcess]) -> Vec<(ExecId, Option<WaitAnswer>)> {
    let mut ended: Vec<_> = all.iter().filter(|exec| exec.pid != 0 && exec.exited_at != 0).collect();
    ended.sort_by_key(|exec| exec.exited_at);
    let end = |exec: &ExecProcess| WaitAnswer {
        exit_code: u8::try_from(exec.exit_code).unwrap_or(u8::MAX),
        at: exec.exited_at,
    };
    ended.into_iter().filter_map(|exec| Some((exec.exec_id.parse().ok()?, Some(end(exec))))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exec(exec_id: &str, started_at: u64, exited_at: u64) -> ExecProcess {
        ExecProcess { exec_id: exec_id.to_owned(), pid: 7, started_at, exited_at, ..ExecProcess::default() }
    }

    fn told(kept_since: u64, all: &[(&str, bool)]) -> Told {
        let mut told = Told::since(kept_since);
        for (exec, ended) in all {
            let (container, exec) = ("c".to_owned(), (*exec).to_owned());
            told.add(&events::OfExec { cursor: 1, container, exec, ended: *ended });
        }
        told
    }

    #[test]
    fn what_is_not_in_the_log_was_not_told() {
        let (running, ended) = (exec("a", 100, 0), exec("a", 100, 200));
        for (log, of_running, of_ended) in [
            (&[][..], Some(Next::Start), Some(Next::Start)),
            (&[("a", false)], Some(Next::Die), Some(Next::Die)),
            (&[("a", false), ("a", true)], Some(Next::Die), None),
            (&[("b", false), ("b", true)], Some(Next::Start), Some(Next::Start)),
        ] {
            assert_eq!(told(0, log).next(&running), of_running, "{log:?}");
            assert_eq!(told(0, log).next(&ended), of_ended, "{log:?}");
        }
    }

    #[test]
    fn what_may_have_been_forgotten_is_not_told_again() {
        let nothing = |since| told(since, &[]);
        assert_eq!(nothing(150).next(&exec("a", 100, 200)), Some(Next::Die), "its end is kept");
        assert_eq!(nothing(201).next(&exec("a", 100, 200)), None);
        assert_eq!(nothing(201).next(&exec("a", 100, 0)), Some(Next::Die), "it will end");
        assert_eq!(Told::unknown().next(&exec("a", 100, 200)), None);
        assert_eq!(Told::unknown().next(&exec("a", 100, 0)), Some(Next::Die));
    }

    #[test]
    fn they_are_told_in_the_order_of_their_ends() {
        let never_ran = ExecProcess { pid: 0, ..exec("d", 0, 1) };
        let all = [exec("a", 1, 9), exec("b", 2, 0), exec("c", 3, 5), never_ran];
        let told: Vec<_> =
            ended(&all).into_iter().map(|(id, end)| (id.to_string(), end.map(|e| e.at))).collect();
        assert_eq!(told, [("c".to_owned(), Some(5)), ("a".to_owned(), Some(9))]);
    }
}
