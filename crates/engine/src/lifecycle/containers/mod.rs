// SPDX-License-Identifier: Apache-2.0
//! Containers: what can be done with them, and in which order.
//!
//! One file per use case. What is true of a container is in the database and
//! its bundle; the [`entry::Entry`] in memory only says who is at work on it
//! and how its shim is reached. There is no lock across containers, and lists
//! are read from the database, so a stuck shim stops nobody else.

mod cdi;
mod commit;
mod create;
mod devices;
mod diff;
mod donors;
mod end;
mod entry;
mod etc;
mod exec_events;
mod files;
mod filters;
mod forwarding;
mod health;
mod host;
mod list;
mod logging;
mod lookup;
mod pause;
mod policy;
mod probe;
mod prune;
mod reconcile;
mod remove;
mod rename;
mod restart;
mod signal;
mod start;
mod stats;
mod top;
mod update;
mod wait;

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use berth::{
    bundle,
    ids::{ContainerId, Namespace},
};

pub use self::{
    commit::CommitOptions,
    create::Created,
    entry::{Attaching, Entry, Live, Phase, View},
    files::{Copied, CopyInto, PathStat},
    list::{Details, ListOptions, Listed, Sizes},
    prune::{PruneOptions, Pruned},
    remove::Force,
    signal::Stopped,
    start::StartOutcome,
    stats::{Counted, Measured, StatsOptions},
    wait::Condition,
};
pub(super) use self::{
    exec_events::{Next, Told, ToldOnce},
    logging::attributes as log_attributes,
    probe::PREFIX as PROBE_PREFIX,
    signal::unreachable,
};
use self::{filters::Filters, host::Host};
use super::{
    events::Events,
    images::Images,
    logs::{Changes, Watched},
};
pub use crate::store::snapshot::{Change, ChangeKind};
use crate::{
    config::Containers as Defaults,
    domain::{container::Document, record::Record},
    error::{Context as _, Result},
    shim::manager::Manager,
    store::{
        meta::{
            Db, containers as rows,
            events::{self, NewEvent},
        },
        snapshot::Snapshots,
    },
};

/// Where things are; all absolute.
#[derive(Debug, Clone)]
pub struct Paths {
    /// What must survive a reboot.
    pub root: PathBuf,
    /// Bundles.
    pub state: PathBuf,
    /// The cgroup below which containers are, e.g. `/berth`.
    pub cgroup_parent: String,
    /// The shim's program.
    pub shim_binary: PathBuf,
}

/// What containers are built on.
#[derive(Debug)]
pub struct Deps {
    /// Metadata.
    pub db: Arc<Db>,
    /// Where a new container's image comes from.
    pub images: Arc<Images>,
    /// Root file systems.
    pub snapshots: Arc<Snapshots>,
    /// Who is told of changes.
    pub events: Arc<Events>,
    /// Where things are.
    pub paths: Paths,
    /// What the user doesn't say.
    pub defaults: Defaults,
}

/// All that can be done with containers.
#[derive(Debug)]
pub struct Containers {
    db: Arc<Db>,
    images: Arc<Images>,
    snapshots: Arc<Snapshots>,
    events: Arc<Events>,
    paths: Paths,
    defaults: Defaults,
    shims: Manager,
    host: Host,
    filters: Filters,
    /// Turns of those that are started by their policies.
    restarting: tokio::sync::Semaphore,
    entries: Mutex<HashMap<ContainerId, Arc<Entry>>>,
    pub(super) log_changes: Changes,
    log_rotations: Changes,
    /// Whose turn it is to compress a log.
    compressing: tokio::sync::Semaphore,
    stopping: AtomicBool,
}

impl Containers {
    /// The engine is about to end: connections that end from here on weren't
    /// left by their clients.
    pub fn engine_stops(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Seals the shim's program and looks at the host. Blocks.
    ///
    /// # Errors
    /// `NotFound` when there is no shim; those of the host.
    pub fn new(deps: Deps) -> Result<Arc<Self>> {
        let Deps { db, images, snapshots, events, paths, defaults } = deps;
        let shims = Manager::new(&paths.shim_binary, &paths.cgroup_parent)?;
        let host = Host::probe()?;
        let entries = Mutex::default();
        Ok(Arc::new(Self {
            db,
            images,
            snapshots,
            events,
            paths,
            defaults,
            shims,
            host,
            filters: Filters::default(),
            restarting: tokio::sync::Semaphore::new(policy::AT_ONCE),
            entries,
            log_changes: Changes::new(Watched::Writes),
            log_rotations: Changes::new(Watched::Names),
            compressing: tokio::sync::Semaphore::new(1),
            stopping: AtomicBool::new(false),
        }))
    }

    /// Runs blocking work at the one place where it is entered.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&this)).await.context("run a blocking step")?
    }

    /// Runs `work` to its end even when the caller goes away, so that nothing
    /// is left half done.
    pub(super) async fn detached<T: Send + 'static>(
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        tokio::spawn(work).await.context("finish a request")?
    }

    /// The container's entry; made when it is asked for first.
    pub(super) fn entry(&self, id: &ContainerId) -> Arc<Entry> {
        Arc::clone(self.entries().entry(id.clone()).or_default())
    }

    /// What a privileged process may do here.
    pub(super) fn all_capabilities(&self) -> &[oci_spec::runtime::Capability] {
        &self.host.capabilities
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Entry>>> {
        // Every change is one insert or remove: a panic can't tear it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the container's own files are: its log, its files of /etc.
    #[must_use]
    pub fn directory(&self, namespace: &Namespace, id: &ContainerId) -> PathBuf {
        self.paths.root.join("containers").join(namespace.as_str()).join(id.as_str())
    }

    /// The current segment of the container's log.
    #[must_use]
    pub fn log_path(&self, namespace: &Namespace, id: &ContainerId) -> PathBuf {
        self.directory(namespace, id).join("container.log")
    }

    /// Where its bundle is while it runs.
    #[must_use]
    pub fn bundle_path(&self, namespace: &Namespace, id: &ContainerId) -> PathBuf {
        bundle::path(&self.paths.state, namespace, id)
    }

    /// Everything that was asked for and is in force. Blocks.
    pub(super) fn read_document(&self, id: &ContainerId) -> Result<Document> {
        self.db.read(|c| rows::document(c, id))
    }

    /// Records, with nothing else, that something was done to a container.
    fn note(&self, record: &Record, action: &'static str, more: &[(&str, String)]) -> Result<()> {
        self.db.write(|tx| events::append(tx, &event(record, action, more)))?;
        self.events.committed();
        Ok(())
    }
}

fn event(record: &Record, action: &'static str, more: &[(&str, String)]) -> NewEvent {
    let mut attributes: BTreeMap<_, _> = record.event_attributes();
    attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    NewEvent {
        namespace: record.namespace.to_string(),
        kind: "container",
        action,
        id: record.id.to_string(),
        attributes,
    }
}
