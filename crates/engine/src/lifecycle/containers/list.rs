// SPDX-License-Identifier: Apache-2.0
//! Lists and details: from one snapshot of the database, never from a shim.

use std::{path::PathBuf, sync::Arc};

use berth::{ids::Namespace, log::Dropped};
use rusqlite::Connection;

use super::{Containers, Phase, lookup};
use crate::{
    domain::{
        container::Document,
        filter::{ContainerFilter, Subject},
        health::State,
        record::Record,
        state::{Shown, Status},
    },
    error::Result,
    store::meta::{
        containers::{self as rows, Scope},
        health,
    },
};

/// Which containers, and what of them.
#[derive(Debug, Clone)]
pub struct ListOptions {
    /// The tenant.
    pub namespace: Namespace,
    /// Exited and created ones too.
    pub all: bool,
    /// At most this many, the newest; implies `all`. 0 is no limit.
    pub limit: usize,
    /// Conditions.
    pub filter: ContainerFilter,
    /// Whether file systems are measured.
    pub sizes: bool,
}

/// A container of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// As recorded.
    pub record: Record,
    /// As users see it.
    pub status: Shown,
    /// Where they were asked for.
    pub sizes: Option<Sizes>,
}

/// Bytes of a container's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Written by the container.
    pub written: u64,
    /// Image and container together.
    pub root: u64,
}

/// Everything that is known of a container.
#[derive(Debug, Clone)]
pub struct Details {
    /// As recorded.
    pub record: Record,
    /// As users see it.
    pub status: Shown,
    /// As requested, and in force.
    pub document: Document,
    /// What could not be written to its log.
    pub log_dropped: Dropped,
    /// The current segment of its log.
    pub log_path: PathBuf,
    /// Its bundle, while it runs.
    pub bundle_path: PathBuf,
    /// Its shim; 0 when there is none.
    pub shim_pid: u32,
    /// What is remembered of its health.
    pub health: Option<State>,
}

impl Containers {
    /// Lists containers, newest first.
    ///
    /// # Errors
    /// `NotFound` for a container named by `before` or `since`.
    pub async fn list(self: &Arc<Self>, options: ListOptions) -> Result<Vec<Listed>> {
        self.blocking(move |this| this.list_now(&options)).await
    }

    fn list_now(&self, options: &ListOptions) -> Result<Vec<Listed>> {
        let all = options.all || options.limit > 0 || options.filter.wants_all();
        let scope = if all { Scope::All } else { Scope::Running };
        let ancestors = self.ancestors(&options.namespace, &options.filter.ancestor);
        let mut listed = self.db.read(|c| {
            let age = Age::of(c, &options.namespace, &options.filter)?;
            let found = rows::list(c, &options.namespace, scope)?;
            Ok(found
                .into_iter()
                .map(|record| Listed { status: self.shown(&record), record, sizes: None })
                .filter(|one| passes(&options.filter, one) && age.includes(one.record.created_at))
                .filter(|one| ancestors.is_empty() || ancestors.iter().any(|a| a.is_of(&one.record)))
                .take(if options.limit == 0 { usize::MAX } else { options.limit })
                .collect::<Vec<_>>())
        })?;
        if options.sizes {
            for one in &mut listed {
                one.sizes = Some(self.sizes(&one.record)?);
            }
        }
        Ok(listed)
    }

    /// Everything that is known of a container.
    ///
    /// # Errors
    /// As for finding it.
    pub async fn inspect(self: &Arc<Self>, namespace: Namespace, reference: String) -> Result<Details> {
        self.blocking(move |this| {
            let (record, document, health, log_dropped) = this.db.read(|c| {
                let record = lookup::resolve(c, &namespace, &reference)?;
                let document = rows::document(c, &record.id)?;
                let health = health::get(c, &record.id)?;
                let dropped = this.dropped(c, &record)?;
                Ok((record, document, health, dropped))
            })?;
            Ok(Details {
                status: this.shown(&record),
                log_dropped,
                log_path: this.log_path(&record.namespace, &record.id),
                bundle_path: this.bundle_path(&record.namespace, &record.id),
                shim_pid: record.shim.as_ref().map_or(0, |shim| shim.pid),
                record,
                document,
                health,
            })
        })
        .await
    }

    /// The status that users see: a shim that doesn't answer shows.
    pub(super) fn shown(&self, record: &Record) -> Shown {
        if record.status != Status::Running {
            return record.shown();
        }
        let entry = self.entries().get(&record.id).cloned();
        match entry.map(|entry| entry.view().phase) {
            Some(Phase::Unreachable(_)) => Shown::Unknown,
            Some(Phase::Running(live)) if live.task.is_silent() => Shown::Unknown,
            _ => record.shown(),
        }
    }

    fn sizes(&self, record: &Record) -> Result<Sizes> {
        let written = self.snapshots.usage(record.id.as_str())?;
        let image = self.db.read(|c| rows::image_size(c, &record.image_id))?;
        Ok(Sizes { written, root: image.saturating_add(written) })
    }

    /// Images by what users call them; an unknown one matches by its name.
    fn ancestors(&self, namespace: &Namespace, wanted: &[String]) -> Vec<Ancestor> {
        let of = |name: &String| Ancestor {
            id: self.images.resolve(namespace, name).ok().map(|image| image.id.to_string()),
            name: name.clone(),
        };
        wanted.iter().map(of).collect()
    }
}

/// An image that a container may come from.
#[derive(Debug)]
struct Ancestor {
    name: String,
    id: Option<String>,
}

impl Ancestor {
    fn is_of(&self, record: &Record) -> bool {
        record.image == self.name || self.id.as_ref().is_some_and(|id| *id == record.image_id)
    }
}

/// Bounds of the time of creation, from `before` and `since`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Age {
    after: u64,
    before: u64,
}

impl Age {
    fn of(db: &Connection, namespace: &Namespace, filter: &ContainerFilter) -> Result<Self> {
        let mut age = Self { after: 0, before: u64::MAX };
        for reference in &filter.since {
            age.after = age.after.max(lookup::resolve(db, namespace, reference)?.created_at);
        }
        for reference in &filter.before {
            age.before = age.before.min(lookup::resolve(db, namespace, reference)?.created_at);
        }
        Ok(age)
    }

    fn includes(self, created_at: u64) -> bool {
        self.after < created_at && created_at < self.before
    }
}

fn passes(filter: &ContainerFilter, one: &Listed) -> bool {
    let passes = |status| {
        filter.matches(&Subject {
            id: one.record.id.as_str(),
            name: &one.record.name,
            labels: &one.record.summary.labels,
            status,
            exit_code: one.record.exit.code,
            health: one.record.health,
        })
    };
    // One whose shim is silent runs all the same, as far as anybody knows.
    passes(one.status) || one.status == Shown::Unknown && passes(one.record.shown())
}
