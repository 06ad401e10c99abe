// SPDX-License-Identifier: Apache-2.0
//! Processes that have joined a container: what its shim has, against the
//! processes and the cgroups there are. They are recorded nowhere else.

use std::{collections::HashMap, fs};

use berth::{api::shim::ExecProcess, ids::ContainerId};
use futures_util::future::join_all;

use super::{Report, processes::is_in, world::World};
use crate::{
    domain::record::Record,
    error::{Context as _, Result},
    shim::{bundle::Bundle, cgroup, search, task::Task},
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
        report.wrong("cgroup", leaf, format!("no exec of {} has it", row.id), "nothing there");
    }
    Ok(())
}
