// SPDX-License-Identifier: Apache-2.0
//! From what exists to the row that knows it. A row is written before a
//! bundle, a shim, a cgroup or a directory is made and outlives them: there is
//! no moment in which one of these may be nobody's.

use std::path::PathBuf;

use berth::ids::ContainerId;

use super::{
    Report,
    processes::is_in,
    world::{World, in_flight, names},
};
use crate::{
    domain::{record::Record, state::Status},
    error::Result,
};

pub(super) fn check(world: &World<'_>, report: &mut Report) -> Result<()> {
    directories(world, "bundle", world.places.state.join("bundles"), report)?;
    directories(world, "directory", world.places.root.join("containers"), report)?;
    shims(world, report);
    cgroups(world, report);
    guests(world, report);
    Ok(())
}

fn row_of<'w>(world: &'w World<'_>, namespace: &str, id: &str) -> Option<&'w Record> {
    let row = world.rows.get(&id.parse::<ContainerId>().ok()?)?;
    (row.namespace.as_str() == namespace).then_some(row)
}

/// `base/<namespace>/<id>`.
fn directories(world: &World<'_>, what: &'static str, base: PathBuf, report: &mut Report) -> Result<()> {
    for namespace in names(&base)? {
        let dir = base.join(&namespace);
        for id in names(&dir)? {
            let known = namespace.to_str().zip(id.to_str()).and_then(|(ns, id)| row_of(world, ns, id));
            if known.is_none() {
                report.wrong(what, dir.join(&id).display(), "no container has it", "nothing there");
            }
        }
    }
    Ok(())
}

fn shims(world: &World<'_>, report: &mut Report) {
    report.checked.shims = world.shims.len();
    for shim in &world.shims {
        let row = shim.container().and_then(|id| world.rows.get(&id));
        let Some(row) = row else {
            report.wrong(
                "shim",
                shim.pid,
                format!("no container has it ({})", shim.bundle.display()),
                "no shim",
            );
            continue;
        };
        match &row.shim {
            Some(recorded) if recorded.pid == shim.pid => {}
            Some(recorded) => {
                let expected = format!("no shim but {}", recorded.pid);
                report.wrong("shim", shim.pid, format!("it serves {}", row.id), expected);
            }
            None if row.status == Status::Starting => {
                report.pending("shim", shim.pid, format!("it was started for {}", row.id), "its record");
            }
            None => {
                let found = format!("it serves {}, which is {}", row.id, row.status);
                report.wrong("shim", shim.pid, found, "no shim");
            }
        }
    }
}

fn cgroups(world: &World<'_>, report: &mut Report) {
    report.checked.cgroups = world.cgroups.len();
    for name in &world.cgroups {
        let parent = &world.places.cgroup_parent;
        let known = world.rows.values().any(|row| row.below_cgroup(parent).as_ref() == Some(name));
        if !known && Record::is_cgroup_name(name) {
            let path = format!("{parent}/{name}");
            report.wrong("cgroup", path, "no container has it", "nothing there");
        }
    }
}

/// Processes that see a container's files.
fn guests(world: &World<'_>, report: &mut Report) {
    for guest in &world.processes.guests {
        let snapshot = world.snapshots.iter().find(|row| row.dir.to_string() == guest.snapshot);
        let row = snapshot.and_then(|snapshot| world.rows.get(&snapshot.key.parse().ok()?));
        let Some(row) = row else {
            let found = format!("it sees snapshot {}, which no container has", guest.snapshot);
            report.wrong("process", guest.pid, found, "no such process");
            continue;
        };
        if in_flight(row).is_some() {
            continue;
        }
        if row.status != Status::Running {
            let found = format!("it sees the files of {}, which is {}", row.id, row.status);
            report.wrong("process", guest.pid, found, "no such process");
        } else if is_in(guest.pid, &world.cgroup(row)) == Some(false) {
            let found = format!("it sees the files of {} and is not in its cgroup", row.id);
            report.wrong("process", guest.pid, found, format!("a process in {}", world.cgroup(row)));
        }
    }
}
