// SPDX-License-Identifier: Apache-2.0
//! The checker: does everything that the database says exist, and does
//! anything exist that the database doesn't know? Compares metadata, bundles,
//! shims and what they know, processes, namespaces, cgroups and their limits,
//! mounts, content and snapshots, and changes nothing. `berthd fsck` is its
//! door; every end-to-end test ends with it.
//!
//! It works beside an engine. What the engine has announced (a container that
//! is being made, started, removed) is *pending*, not wrong; what is wrong for
//! a moment only is looked at again, and counts when it stays.

mod containers;
mod content;
mod execs;
mod host;
mod lives;
mod namespaces;
mod orphans;
mod processes;
mod report;
mod snapshots;
mod world;

use std::{path::PathBuf, time::Duration};

pub use self::report::{Checked, Finding, Report};
use self::world::World;
use crate::{error::Result, store::meta};

/// How often a finding is looked at again while an engine works.
const LOOKS: u32 = 6;

/// Between two looks: longer than any step between an act and its record.
const PAUSE: Duration = Duration::from_millis(500);

/// Where to look; all absolute.
#[derive(Debug, Clone)]
pub struct Places {
    /// What survives a reboot.
    pub root: PathBuf,
    /// The metadata.
    pub metadata: PathBuf,
    /// Bundles.
    pub state: PathBuf,
    /// The cgroup below which containers are, e.g. `/berth`.
    pub cgroup_parent: String,
}

/// Whether an engine is at work there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// It is.
    Running,
    /// What the last one left is taken over by the next.
    Stopped,
}

/// How thoroughly blobs are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Their sizes.
    Sizes,
    /// Every byte of them.
    Digests,
}

/// Compares everything. Blocks; not to be called where a runtime is at work.
///
/// # Errors
/// What keeps it from looking: no metadata, of another version, or damaged;
/// those of the host.
pub fn check(places: &Places, engine: Engine, depth: Depth) -> Result<Report> {
    meta::look(&places.metadata, meta::check)?;
    let mut report = look(places, engine, depth)?;
    if engine == Engine::Stopped {
        return Ok(report);
    }
    for _ in 1..LOOKS {
        if report.findings.is_empty() {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "another process is at work; bounded by LOOKS")]
        std::thread::sleep(PAUSE);
        report = look(places, engine, depth)?.confirming(&report);
    }
    Ok(report)
}

fn look(places: &Places, engine: Engine, depth: Depth) -> Result<Report> {
    let world = World::see(places, engine)?;
    let mut report = Report::default();
    containers::check(&world, &mut report)?;
    lives::check(&world, &mut report);
    execs::check_events(&world, &mut report);
    orphans::check(&world, &mut report)?;
    snapshots::check(&world, &mut report)?;
    content::check(&world, depth, &mut report)?;
    host::check(&world, &mut report)?;
    Ok(report)
}
