// SPDX-License-Identifier: Apache-2.0
//! From each row of a container to what it says exists.

use std::os::fd::AsFd as _;

use berth::bundle::{self as layout, ProcessIdentity};

use super::{
    Engine, Report, execs, namespaces,
    processes::is_in,
    world::{World, in_flight},
};
use crate::{
    domain::{container::Document, record::Record, spec::limits::Difference, state::Status},
    error::{Context as _, Error, Kind, Result},
    kernel::pidfd,
    shim::{bundle::Bundle, cgroup, limits},
    store::meta::snapshots,
};

pub(super) fn check(world: &World<'_>, report: &mut Report) -> Result<()> {
    report.checked.containers = world.rows.len();
    for row in world.rows.values() {
        if let Some(why) = in_flight(row) {
            report.pending("container", &row.id, why, "a container at rest, or one that runs");
            continue;
        }
        own_things(world, row, report);
        match row.status {
            Status::Running => running(world, row, report)?,
            _ => at_rest(world, row, report),
        }
    }
    Ok(())
}

/// What every container has, running or not.
fn own_things(world: &World<'_>, row: &Record, report: &mut Report) {
    let directory = world.directory(row);
    if !directory.is_dir() {
        report.wrong("container", &row.id, format!("it has no {}", directory.display()), "its directory");
    }
    let layer = world.snapshots.iter().find(|snapshot| snapshot.key == row.id.as_str());
    if layer.is_none_or(|layer| layer.kind != snapshots::ACTIVE) {
        report.wrong("container", &row.id, "it has no writable layer", "a snapshot with its id");
    }
    if !world.images.iter().any(|image| image.id == row.image_id) {
        report.wrong("container", &row.id, format!("its image {} is gone", row.image_id), "the image");
    }
}

/// Shims, bundles and cgroups of a container at rest are orphans' business, as
/// are processes.
fn at_rest(world: &World<'_>, row: &Record, report: &mut Report) {
    if row.pid != 0 {
        let found = format!("it is {} and has pid {}", row.status, row.pid);
        report.wrong("container", &row.id, found, "no pid");
    }
    if row.status == Status::Exited && row.exit.at == 0 {
        report.wrong("container", &row.id, "it is exited and nobody knows since when", "the time of its end");
    }
    if row.paused {
        report.wrong("container", &row.id, format!("it is {} and paused", row.status), "one of the two");
    }
    let bundle = layout::path(&world.places.state, &row.namespace, &row.id);
    if bundle.exists() {
        let found = format!("its container {} is {}", row.id, row.status);
        report.wrong("bundle", bundle.display(), found, "no bundle");
    }
    if world.has_cgroup(row) {
        let found = format!("its container {} is {}", row.id, row.status);
        report.wrong("cgroup", world.cgroup(row), found, "no cgroup");
    }
}

fn running(world: &World<'_>, row: &Record, report: &mut Report) -> Result<()> {
    let Some(shim) = &row.shim else {
        report.wrong("container", &row.id, "it runs and no shim is recorded", "the shim's identity");
        return Ok(());
    };
    if !lives(shim)? {
        let found = format!("its shim {} has ended", shim.pid);
        match world.engine {
            Engine::Running => report.wrong("container", &row.id, found, "an exited container"),
            // A container may end while no engine looks.
            Engine::Stopped => report.pending("container", &row.id, found, "an exited container"),
        }
        return Ok(());
    }
    let path = layout::path(&world.places.state, &row.namespace, &row.id);
    let bundle = match Bundle::open(&path) {
        Ok(bundle) => bundle,
        Err(e) if e.kind() == Kind::NotFound => {
            report.wrong("container", &row.id, format!("it runs without {}", path.display()), "its bundle");
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    records(row, &bundle, shim, report);
    match bundle.init() {
        Ok(Some(init)) => first_process(world, row, &bundle, &init, report),
        Ok(None) => {
            report.wrong("container", &row.id, "it runs and no first process is recorded", "its identity");
            Ok(())
        }
        // Said by `records`.
        Err(_) => Ok(()),
    }
}

/// The bundle's records against the row.
fn records(row: &Record, bundle: &Bundle, shim: &ProcessIdentity, report: &mut Report) {
    match bundle.shim() {
        Ok(Some(recorded)) if recorded == *shim => {}
        Ok(Some(recorded)) => {
            let found = format!("its bundle has shim {}", recorded.pid);
            report.wrong("container", &row.id, found, format!("shim {}", shim.pid));
        }
        Ok(None) => {
            report.wrong("container", &row.id, "its bundle has no shim", format!("shim {}", shim.pid))
        }
        Err(e) => damaged(row, &e, report),
    }
    for read in [bundle.init().map(drop), bundle.exit().map(drop)] {
        if let Err(e) = read {
            damaged(row, &e, report);
        }
    }
}

fn damaged(row: &Record, error: &Error, report: &mut Report) {
    report.wrong("container", &row.id, error.chain(), "a record that can be read");
}

fn first_process(
    world: &World<'_>,
    row: &Record,
    bundle: &Bundle,
    init: &ProcessIdentity,
    report: &mut Report,
) -> Result<()> {
    if init.pid != row.pid {
        let found = format!("its first process is {}", init.pid);
        report.wrong("container", &row.id, found, format!("pid {}, as recorded", row.pid));
    }
    if !lives(init)? {
        let found = format!("its first process {} has ended", init.pid);
        let recorded = bundle.exit().is_ok_and(|exit| exit.is_some());
        // Its shim may still wait for the last of the output.
        if world.engine == Engine::Running && recorded {
            report.wrong("container", &row.id, found, "an exited container");
        } else {
            report.pending("container", &row.id, found, "an exited container");
        }
        return Ok(());
    }
    let group = world.cgroup(row);
    if is_in(init.pid, &group) == Some(false) {
        report.wrong("process", init.pid, format!("it is not in {group}"), "the cgroup of its container");
    }
    if let Some(document) = world.documents.get(&row.id) {
        namespaces::check(world, row, document, init.pid, report)?;
        limits(world, row, document, report)?;
    }
    execs::check(world, row, report)?;
    if let Some(frozen) = cgroup::is_frozen(&group)?
        && frozen != row.paused
    {
        let word = |paused: bool| if paused { "paused" } else { "running" };
        let found = format!("its processes are {}", word(frozen));
        match world.engine {
            Engine::Running => report.wrong("container", &row.id, found, word(row.paused)),
            // Frozen first, recorded then: an engine may end in between.
            Engine::Stopped => report.pending("container", &row.id, found, word(row.paused)),
        }
    }
    Ok(())
}

/// What the kernel holds it to, against what its row says.
fn limits(world: &World<'_>, row: &Record, document: &Document, report: &mut Report) -> Result<()> {
    let differences = limits::in_force(&world.cgroup(row))?.differences(&document.config.host);
    for Difference { limit, found, expected } in differences {
        let found = format!("its {limit} in the kernel: {found}");
        match world.engine {
            Engine::Running => report.wrong("container", &row.id, found, expected),
            // Changed first, recorded then; the next one puts it right.
            Engine::Stopped => report.pending("container", &row.id, found, expected),
        }
    }
    Ok(())
}

fn lives(process: &ProcessIdentity) -> Result<bool> {
    let found = pidfd::open_identified(process).context("look for a process")?;
    let ended =
        found.map(|pidfd| pidfd::has_ended(pidfd.as_fd())).transpose().context("look at a process")?;
    Ok(ended == Some(false))
}
