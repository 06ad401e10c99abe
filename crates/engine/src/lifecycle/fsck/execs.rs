// SPDX-License-Identifier: Apache-2.0
//! Processes that have joined a container: what its shim has, against the
//! processes and the cgroups there are, and against what was told of them. They
//! are recorded nowhere else.
//!
//! An end that no event tells of is not wrong by itself, since an exec may end
//! while no engine looks: the next one tells of it at its start, by the same
//! rule as here (`Told::next`), and until then it is pending. A running
//! engine has done so when it took the container over, and has told of each end
//! since: what it hasn't told after a moment nobody tells before another start,
//! and that is wrong. Ends that the log may have forgotten are nobody's.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use berth::{api::shim::ExecProcess, ids::ContainerId};
use futures_util::future::join_all;

use super::{Engine, Report, processes::is_in, world::World};
use crate::{
    domain::{id, record::Record},
    error::{Context as _, Result},
    lifecycle::containers::{Next, PROBE_PREFIX},
    shim::{bundle::Bundle, cgroup, search, task::Task},
    store::meta::events::OfExec,
};

/// Before the id, in the name of a cgroup that a process has for itself.
const PREFIX: &str = "exec-";

/// What each shim has; `None` is one that doesn't answer. Takes no longer than
/// the slowest. Not to be called where a runtime is at work.
pub(super) fn ask(shims: &[search::Shim]) -> Result<HashMap<ContainerId, Option<Vec<ExecProcess>>>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime to ask shims")?;
    let all = shims.iter().filter_map(|shim| Some((shim.container()?, &shim.bundle)));
    let asked = all.map(|(id, path)| async move {
        let answer = async {
            let bundle = Bundle::open(path)?;
            Task::connect(bundle.dir(), &id).await?.execs().await
        };
        let answer = answer.await.ok();
        (id, answer)
    });
    Ok(runtime.block_on(join_all(asked)).into_iter().collect())
}

/// For a container that runs, whose first process lives.
pub(super) fn check(world: &World<'_>, row: &Record, report: &mut Report) -> Result<()> {
    let group = world.cgroup(row);
    let known = match world.execs.get(&row.id) {
        Some(Some(known)) => known,
        Some(None) => {
            report.pending("container", &row.id, "its shim does not answer", "what it knows of execs");
            return Ok(());
        }
        // It has been started since the look at the shims.
        None => return Ok(()),
    };
    let running: Vec<_> = known.iter().filter(|exec| exec.pid != 0 && exec.exited_at == 0).collect();
    for exec in &running {
        if is_in(exec.pid, &group) == Some(false) {
            let found = format!("it is exec {} of {} and not in its cgroup", exec.exec_id, row.id);
            report.wrong("process", exec.pid, found, format!("a process in {group}"));
        } else if fs::metadata(format!("/proc/{}", exec.pid)).is_err() {
            // Its last output is waited for, or it has just been reaped.
            let found = format!("its exec {} ({}) has ended", exec.exec_id, exec.pid);
            report.pending("container", &row.id, found, "an exec that has ended");
        }
    }
    for name in cgroup::children(&group)? {
        let Some(id) = name.strip_prefix(PREFIX) else { continue };
        let leaf = format!("{group}/{name}");
        // Those that it has left behind are the container's own.
        if running.iter().any(|exec| exec.exec_id == id) || !cgroup::is_empty(&leaf)? {
            continue;
        }
        if id::is_fresh(id.strip_prefix(PROBE_PREFIX).unwrap_or(id)) {
            // It couldn't go with its exec, which had left something running.
            report.pending("cgroup", leaf, "its exec has ended", "nothing there once the container ends");
            continue;
        }
        report.wrong("cgroup", leaf, format!("no exec of {} has it", row.id), "nothing there");
    }
    known.iter().for_each(|exec| told(world, row, exec, report));
    Ok(())
}

/// One of them against what was told of it.
fn told(world: &World<'_>, row: &Record, exec: &ExecProcess, report: &mut Report) {
    if exec.pid == 0 || exec.exec_id.starts_with(PROBE_PREFIX) {
        return;
    }
    let of = format!("its exec {}", exec.exec_id);
    if exec.exited_at == 0 && world.told.has_ended(exec) {
        report.wrong("events", &row.id, format!("exec_die was told of {of}, which runs"), "none yet");
    }
    let (found, expected) = match (world.told.next(exec), exec.exited_at) {
        (Some(_), 1..) => (format!("{of} has ended and nobody was told"), "exec_die"),
        (Some(Next::Start), 0) => (format!("{of} has started and nobody was told"), "exec_start"),
        (Some(Next::Die), 0) | (None, _) => return,
    };
    match world.engine {
        Engine::Running => report.wrong("events", &row.id, found, expected),
        Engine::Stopped => report.pending("events", &row.id, found, expected),
    }
}

/// All that was told of execs: of each a start, then an end.
pub(super) fn check_events(world: &World<'_>, report: &mut Report) {
    for event in impossible(&world.exec_events) {
        let action = if event.ended { "exec_die" } else { "exec_start" };
        let found = format!("{action} of exec {} is event {}", event.exec, event.cursor);
        report.wrong("events", &event.container, found, "exec_start, then exec_die, each once");
    }
}

/// What can't have happened; the beginning may have been forgotten.
fn impossible(all: &[OfExec]) -> Vec<&OfExec> {
    let (mut started, mut ended) = (HashSet::new(), HashSet::new());
    let mut found = Vec::new();
    for event in all {
        let id = event.exec.as_str();
        let is_over = ended.contains(id);
        let is_new = if event.ended { ended.insert(id) } else { started.insert(id) };
        if is_over || !is_new {
            found.push(event);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_starts_once_and_ends_once() {
        let event = |(cursor, (exec, ended)): (u64, &(&str, bool))| OfExec {
            cursor,
            container: "c".to_owned(),
            exec: (*exec).to_owned(),
            ended: *ended,
        };
        const START: bool = false;
        const DIE: bool = true;
        for (told, wrong) in [
            (&[("a", START), ("b", START), ("b", DIE), ("a", DIE)][..], &[][..]),
            (&[("a", DIE)], &[]),
            (&[("a", START), ("a", START), ("a", DIE)], &[2]),
            (&[("a", START), ("a", DIE), ("a", DIE)], &[3]),
            (&[("a", DIE), ("a", START), ("b", START)], &[2]),
        ] {
            let told: Vec<_> = (1..).zip(told).map(event).collect();
            let found: Vec<_> = impossible(&told).iter().map(|event| event.cursor).collect();
            assert_eq!(found, wrong, "{told:?}");
        }
    }
}
