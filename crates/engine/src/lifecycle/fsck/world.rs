// SPDX-License-Identifier: Apache-2.0
//! One look at everything, the database last: what it doesn't know then was
//! there before it could have been recorded.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use berth::{api::shim::ExecProcess, ids::ContainerId};

use super::{Engine, Places, execs, processes::Processes};
use crate::{
    domain::{container::Document, record::Record, state::Status},
    error::{Context as _, Error, Result},
    lifecycle::containers::Told,
    shim::{cgroup, search},
    store::meta::{
        self, containers as rows,
        events::{self, OfExec},
        everything::{self, Blob, Happened, Image, Need},
        snapshots,
    },
};

/// What was seen.
pub(super) struct World<'a> {
    pub places: &'a Places,
    pub engine: Engine,
    pub shims: Vec<search::Shim>,
    /// Names below the parent.
    pub cgroups: HashSet<String>,
    /// Of containers that have another parent.
    elsewhere: cgroup::Children,
    pub processes: Processes,
    /// What each shim knows of execs; `None` is one that doesn't answer.
    pub execs: HashMap<ContainerId, Option<Vec<ExecProcess>>>,
    pub rows: HashMap<ContainerId, Record>,
    /// Of those that run.
    pub documents: HashMap<ContainerId, Document>,
    pub lives: Vec<Happened>,
    pub exec_events: Vec<OfExec>,
    pub told: Told,
    pub snapshots: Vec<snapshots::Row>,
    pub images: Vec<Image>,
    pub blobs: Vec<Blob>,
    pub missing_blobs: Vec<Need>,
}

impl<'a> World<'a> {
    pub(super) fn see(places: &'a Places, engine: Engine) -> Result<Self> {
        let shims = search::below(&places.state.join("bundles"))?;
        let execs = execs::ask(&shims)?;
        let cgroups = cgroup::children(&places.cgroup_parent)?;
        let processes = Processes::see(&places.root.join("snapshots"))?;
        meta::look(&places.metadata, |c| {
            let rows: HashMap<_, Record> =
                rows::every(c)?.into_iter().map(|row| (row.id.clone(), row)).collect();
            let of_their_own = rows.values().filter(|row| !row.summary.cgroup_parent.is_empty());
            let parents = of_their_own.map(|row| row.cgroup_parent(&places.cgroup_parent));
            let elsewhere = cgroup::Children::of(parents)?;
            let running = rows.values().filter(|row| row.status == Status::Running);
            let documents = running.map(|row| Ok((row.id.clone(), rows::document(c, &row.id)?)));
            let documents = documents.collect::<Result<_>>()?;
            let mut exec_events = Vec::new();
            let mut told = Told::since(events::kept_since(c)?);
            events::of_execs(c, |one| {
                told.add(&one);
                exec_events.push(one);
            })?;
            Ok(Self {
                places,
                engine,
                shims,
                cgroups,
                elsewhere,
                processes,
                execs,
                rows,
                documents,
                lives: everything::lives(c)?,
                told,
                exec_events,
                snapshots: snapshots::all(c)?,
                images: everything::images(c)?,
                blobs: everything::blobs(c)?,
                missing_blobs: everything::missing_blobs(c)?,
            })
        })
    }

    /// The path of a container's cgroup below each hierarchy.
    pub(super) fn cgroup(&self, row: &Record) -> String {
        row.cgroup(&self.places.cgroup_parent)
    }

    /// Whether a container has a cgroup, in any hierarchy.
    pub(super) fn has_cgroup(&self, row: &Record) -> bool {
        let parent = row.cgroup_parent(&self.places.cgroup_parent);
        self.elsewhere.has(&parent, &row.cgroup_name())
            || parent == self.places.cgroup_parent && self.cgroups.contains(&row.cgroup_name())
    }

    /// The container's own directory.
    pub(super) fn directory(&self, row: &Record) -> PathBuf {
        self.places.root.join("containers").join(row.namespace.as_str()).join(row.id.as_str())
    }
}

/// Whether the engine is at work on a container, or the next one will be.
pub(super) fn in_flight(row: &Record) -> Option<&'static str> {
    match row.status {
        Status::Creating => Some("it is being made"),
        Status::Starting => Some("it is being started"),
        Status::Removing => Some("it is being removed"),
        Status::Created | Status::Exited if row.shim.is_some() => Some("what it held is being freed"),
        Status::Exited if row.summary.auto_remove => Some("it removes itself"),
        Status::Created | Status::Exited | Status::Running => None,
    }
}

/// The names in a directory; none when there is no such directory.
pub(super) fn names(dir: &Path) -> Result<Vec<OsString>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(format!("list {}", dir.display()), e)),
    };
    entries
        .map(|entry| entry.map(|e| e.file_name()).with_context(|| format!("list {}", dir.display())))
        .collect()
}
