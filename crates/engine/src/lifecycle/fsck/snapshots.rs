// SPDX-License-Identifier: Apache-2.0
//! Snapshots: rows against directories, and each against the one below.

use std::collections::HashSet;

use super::{
    Engine, Report,
    world::{World, names},
};
use crate::{
    error::Result,
    store::{meta::snapshots as rows, snapshot},
};

pub(super) fn check(world: &World<'_>, report: &mut Report) -> Result<()> {
    report.checked.snapshots = world.snapshots.len();
    let committed: HashSet<&str> = world
        .snapshots
        .iter()
        .filter(|row| row.kind == rows::COMMITTED)
        .map(|row| row.key.as_str())
        .collect();
    for row in &world.snapshots {
        of_row(world, row, &committed, report);
    }
    for image in &world.images {
        if let Some(top) = &image.chain_id
            && !committed.contains(top.as_str())
        {
            report.wrong("image", &image.id, format!("its layer {top} is gone"), "the layer");
        }
    }
    of_directories(world, report)
}

fn of_row(world: &World<'_>, row: &rows::Row, committed: &HashSet<&str>, report: &mut Report) {
    if row.kind == rows::PREPARING {
        report.pending("snapshot", row.dir, "it is being unpacked", "a layer");
        return;
    }
    if let Some(parent) = &row.parent
        && !committed.contains(parent.as_str())
    {
        report.wrong("snapshot", row.dir, format!("the layer {parent} below it is gone"), "the layer");
    }
    let container = row.key.parse().ok().and_then(|id| world.rows.get(&id));
    let base = world.places.root.join("snapshots").join(row.dir.to_string());
    if row.kind == rows::ACTIVE {
        let Some(container) = container else {
            report.wrong(
                "snapshot",
                row.dir,
                format!("it is for container {}, which is gone", row.key),
                "none",
            );
            return;
        };
        if super::world::in_flight(container).is_some() {
            return;
        }
    }
    let parts: &[&str] = if row.kind == rows::ACTIVE { &["fs", "work"] } else { &["fs"] };
    for part in parts.iter().map(|part| base.join(part)).filter(|part| !part.is_dir()) {
        report.wrong("snapshot", row.dir, format!("there is no {}", part.display()), "a directory");
    }
}

fn of_directories(world: &World<'_>, report: &mut Report) -> Result<()> {
    let base = world.places.root.join("snapshots");
    for name in names(&base)? {
        let text = name.to_string_lossy();
        let known = world.snapshots.iter().any(|row| row.dir.to_string() == text);
        if known || text == snapshot::INIT {
            continue;
        }
        let place = base.join(&name);
        // The row goes first: the next start removes what is left then.
        if text.starts_with(snapshot::REMOVING) || world.engine == Engine::Stopped {
            report.pending("snapshot", place.display(), "it is being removed", "nothing there");
        } else {
            report.wrong("snapshot", place.display(), "no row has it", "nothing there");
        }
    }
    Ok(())
}
