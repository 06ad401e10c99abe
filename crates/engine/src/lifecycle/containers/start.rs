// SPDX-License-Identifier: Apache-2.0
//! Starting a container: shim, task, clients that wait, first process.
//!
//! Each step is recorded before it is taken, so that the next engine knows
//! what to look for: row `starting`, bundle, shim's identity, then the task.

use std::{path::Path, sync::Arc, time::Duration};

use berth::{
    api::{shim::CreateOptions, types},
    bundle::{self, ProcessIdentity},
    failpoint,
};

use rusqlite::Transaction;

use super::{
    Containers, Entry, Live, Phase, cdi,
    create::give_root,
    devices,
    donors::Held,
    etc, event,
    exec_events::Untold,
    host::{self},
    logging, policy,
};
use crate::{
    domain::{
        container::Document,
        namespaces::Joined,
        record::Record,
        restart::{Moment, Restarts, Wanted},
        spec::{self, EtcFiles, Facts},
        state::{Exit, Status},
        users::IdMap,
    },
    error::{Error, Kind, Result},
    kernel::fs::Lock,
    shim::{
        bundle::{self as bundles, Bundle},
        cgroup,
        manager::Started,
        process::{self, Process},
        task::Task,
    },
    store::{
        meta::{containers as rows, events, logs},
        snapshot::Rootfs,
    },
};

/// Exit code of a container that could not be started for another reason than
/// its command: Docker's.
const START_FAILED: u8 = 128;

/// What a start did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    /// The first process runs, with this pid.
    Started(u32),
    /// It ran already, with this pid.
    AlreadyRunning(u32),
}

/// Who has a container started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// Its user, who from now on wants it to run.
    User,
    /// Its restart policy, if the start is still due.
    Policy {
        /// As recorded.
        due: u64,
    },
}

/// What the blocking part of a start hands to the rest.
struct Launch {
    document: Document,
    rootfs: Rootfs,
    /// Its seccomp profile, compiled; empty for none.
    filter: Arc<[u8]>,
    bundle: Bundle,
    shim: Started,
    /// Namespaces of others, until they are joined.
    held: Held,
}

impl Containers {
    /// Starts a created or exited container; returns once its process runs.
    ///
    /// # Errors
    /// `FailedPrecondition` with an exit code when the command can't be
    /// executed; the container is then left `exited` with that code.
    pub async fn start(self: &Arc<Self>, record: Record) -> Result<StartOutcome> {
        let this = Arc::clone(self);
        Self::detached(async move { this.start_now(&record).await }).await
    }

    async fn start_now(self: &Arc<Self>, record: &Record) -> Result<StartOutcome> {
        let entry = self.entry(&record.id);
        let _gate = entry.gate.lock().await;
        let gone = || Error::new(Kind::NotFound, format!("No such container: {}", record.id));
        let record = self.reload(record).await?.ok_or_else(gone)?;
        match record.status {
            Status::Running if record.paused => {
                let what = "cannot start a paused container, try unpause instead";
                return Err(Error::new(Kind::FailedPrecondition, what));
            }
            Status::Running => return Ok(StartOutcome::AlreadyRunning(record.pid)),
            Status::Created | Status::Exited => {}
            Status::Creating => return Err(gone()),
            Status::Removing => {
                let what = "container is marked for removal and cannot be started";
                return Err(Error::new(Kind::FailedPrecondition, what));
            }
            Status::Starting => {
                let what =
                    format!("container {} was being started when the engine ended; ask again", record.id);
                return Err(Error::new(Kind::Unavailable, what));
            }
        }
        self.launch_or_abandon(&entry, &record, By::User).await.map(StartOutcome::Started)
    }

    /// Starts a container whose restart is due, unless that was called off.
    pub(super) async fn start_by_policy(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) -> Result<()> {
        let due = record.restarts.due;
        let _gate = entry.gate.lock().await;
        let Some(record) = self.reload(record).await? else { return Ok(()) };
        if record.status != Status::Exited || record.restarts.due != due {
            return Ok(());
        }
        self.launch_or_abandon(entry, &record, By::Policy { due }).await.map(drop)
    }

    async fn launch_or_abandon(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record, by: By) -> Result<u32> {
        match self.launch(entry, record, by).await {
            Ok(pid) => Ok(pid),
            Err(error) if error.kind() == Kind::Cancelled => Err(error),
            Err(error) => {
                let error = explain(error);
                self.abandon(entry, record, &error, by).await;
                Err(error)
            }
        }
    }

    async fn launch(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record, by: By) -> Result<u32> {
        // Nobody begins a copy while the gate is ours: it is enough that those
        // that had begun are over.
        drop(self.lock_layers(record, Lock::Exclusive).await?);
        let row = record.clone();
        let launch = self.blocking(move |this| this.prepare(&row, by)).await?;
        entry.set_due(0);
        let Launch { document, rootfs, filter, bundle, shim, held } = launch;
        let live = Arc::new(Live {
            namespace: record.namespace.clone(),
            id: record.id.clone(),
            cgroup: self.shims.cgroup(record),
            task: Task::connect(bundle.dir(), &record.id).await?,
            shim: Process::new(shim.identity, shim.pidfd)?,
            bundle,
            init: std::sync::OnceLock::new(),
            untold: Untold::default(),
        });
        // Known from now on, so that whatever fails next can be cleaned up.
        entry.set(Phase::Unreachable(Some(Arc::clone(&live))));
        let options = self.options(record, &document, &filter)?;
        let path = live.bundle.path().to_string_lossy();
        let terminal = document.config.tty.into();
        let made = live.task.create(&path, mounts(&rootfs, &document.effective.id_maps)?, terminal, &options);
        let pid = self.unless_shim_dies(&live, made).await?;
        failpoint::hit("start.created")?;
        drop(held);
        // A few reads of procfs: not worth another thread.
        if let Some(identity) = live.bundle.init()?
            && let Some(init) = Process::find(&identity)?
        {
            // Set here alone, under the gate.
            drop(live.init.set(init));
        }
        entry.set(Phase::Prepared(Arc::clone(&live)));
        entry.attached().await;
        self.unless_shim_dies(&live, live.task.start()).await?;
        failpoint::hit("start.started")?;
        self.record_running(record, pid).await?;
        failpoint::pass("start.done");
        entry.set(Phase::Running(Arc::clone(&live)));
        self.watch(Arc::clone(entry), record.clone(), live, Some(&document.config.host.log));
        Ok(pid)
    }

    /// A shim that dies answers nothing: its last words say why.
    async fn unless_shim_dies<T>(&self, live: &Live, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            answer = call => match answer {
                Err(e) if e.kind() == Kind::Unavailable => Err(last_words(live, e)),
                answer => answer,
            },
            ended = live.shim.ended() => {
                ended?;
                Err(last_words(live, Error::new(Kind::Internal, "the shim has died")))
            }
        }
    }

    /// Everything up to the shim's process. Blocks.
    fn prepare(&self, record: &Record, by: By) -> Result<Launch> {
        let document = self.db.read(|c| rows::document(c, &record.id))?;
        let rootfs = self.snapshots.rootfs(record.id.as_str())?;
        let held = self.hold_namespaces(record, &document.config)?;
        let etc = self.etc_files(record, &document)?;
        let edits = cdi::look_up(&self.defaults.cdi_spec_dirs, &document.config.host.devices.cdi)?;
        let mut facts = Facts { joined: held.paths.clone(), ..self.facts(record, &document, etc)? };
        for node in &edits.device_nodes {
            facts.given.mapped.push(cdi::node(node)?);
        }
        let mut spec = spec::build(&document, &facts)?;
        edits.apply(&mut spec);
        let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        let filter = self.filters.compiled(profile)?;
        self.end_left_shim(record)?;
        self.db.write(|tx| intend(tx, record, by))?;
        failpoint::hit("start.row")?;
        let path = self.bundle_path(&record.namespace, &record.id);
        // The gate is ours and no shim was left: a bundle here is a leftover.
        bundles::remove(&path)?;
        let bundle = Bundle::create(&path, &spec)?;
        failpoint::hit("start.bundle")?;
        let shim = self.shims.start(record, &bundle)?;
        if let Err(error) = self.note_shim(record, &bundle, &shim.identity) {
            // Nobody else knows of it.
            process::end(&shim.identity)?;
            return Err(error);
        }
        Ok(Launch { document, rootfs, filter, bundle, shim, held })
    }

    fn note_shim(&self, record: &Record, bundle: &Bundle, shim: &ProcessIdentity) -> Result<()> {
        failpoint::hit("start.spawned")?;
        bundle.record_shim(shim)?;
        failpoint::hit("start.noted")?;
        self.db.write(|tx| rows::set_shim(tx, &record.id, Some(shim)))?;
        Ok(failpoint::hit("start.recorded")?)
    }

    /// The files that are mounted over those of /etc: with another's network
    /// come another's, as in Docker.
    fn etc_files(&self, record: &Record, document: &Document) -> Result<EtcFiles> {
        let owner = self.etc_owner(record, &document.config)?;
        let etc = EtcFiles::within(&self.directory(&record.namespace, &owner));
        if owner != record.id && etc.hosts.exists() {
            return Ok(etc);
        }
        let etc = EtcFiles::within(&self.directory(&record.namespace, &record.id));
        etc::write(&etc, document)?;
        for path in [&etc.hostname, &etc.hosts, &etc.resolv_conf] {
            give_root(path, &document.effective.id_maps)?;
        }
        Ok(etc)
    }

    fn facts(&self, record: &Record, document: &Document, etc: EtcFiles) -> Result<Facts> {
        let privileged = document.config.host.privileged;
        Ok(Facts {
            cgroup_path: self.shims.cgroup(record),
            etc,
            all_capabilities: self.host.capabilities.clone(),
            devices: if privileged { host::devices()? } else { Vec::new() },
            thermal_throttle: self.host.thermal_throttle.clone(),
            rlimits: self.host.rlimits.clone(),
            kernel: self.host.kernel,
            selinux: self.host.selinux,
            given: devices::look_up(&document.config.host.devices)?,
            joined: Joined::default(),
        })
    }

    fn options(&self, record: &Record, document: &Document, filter: &[u8]) -> Result<CreateOptions> {
        let config = &document.config;
        let path = self.log_path(&record.namespace, &record.id);
        let untold = self.db.read(|c| logs::dropped(c, &record.id))?;
        Ok(CreateOptions {
            log: Some(logging::log(record, document, &path, untold, &self.defaults)),
            user: spec::lookup(&document.effective.user, &config.host.group_add),
            open_stdin: config.open_stdin,
            stdin_once: config.stdin_once,
            console_rows: 0,
            console_columns: 0,
            seccomp_filter: filter.to_vec(),
            init: config.host.init,
            timeout: config.timeout,
        })
    }

    /// Records that the first process runs; 0 when it has ended since.
    pub(super) async fn record_running(self: &Arc<Self>, record: &Record, pid: u32) -> Result<()> {
        let record = record.clone();
        self.blocking(move |this| {
            this.db.write(|tx| {
                rows::set_running(tx, &record.id, pid, bundle::now_nanos())?;
                events::append(tx, &event(&record, "start", &[]))
            })?;
            this.events.committed();
            Ok(())
        })
        .await
    }

    /// Leaves nothing of a start that failed but its exit code and its reason.
    async fn abandon(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record, error: &Error, by: By) {
        let exit = Exit {
            code: error.exit_code().unwrap_or(START_FAILED),
            at: bundle::now_nanos(),
            oom_killed: false,
            error: error.chain(),
        };
        let live = entry.live();
        let (row, end) = (record.clone(), exit.clone());
        let done = self
            .blocking(move |this| {
                match (live, this.db.read(|c| rows::any(c, &row.id))?.and_then(|now| now.shim)) {
                    (Some(live), _) => live.shim.kill()?,
                    // It could not even be spoken to.
                    (None, Some(shim)) => process::end(&shim)?,
                    (None, None) => {}
                }
                let cleaned = this.sweep(&row);
                this.db.write(|tx| {
                    // A start that failed before its row said so, too.
                    rows::transit(tx, &row.id, &[Status::Created, Status::Exited], Status::Starting)?;
                    rows::set_exited(tx, &row.id, &end)?;
                    give_up(tx, &row, by)?;
                    if cleaned.is_ok() { rows::set_shim(tx, &row.id, None) } else { Ok(()) }
                })?;
                cleaned
            })
            .await;
        if let Err(e) = done {
            tracing::error!(id = %record.id, error = e.chain(), "clean up after a start that failed");
        }
        entry.ended(exit);
        if record.summary.auto_remove {
            return self.remove_automatically(entry, record).await;
        }
        self.follow_policy(entry, record).await;
    }

    /// Ends the shim of a container that has ended itself, whose engine was
    /// killed before it could: the next engine serves before it has come to all
    /// of these. The gate is held. Blocks.
    pub(super) fn end_left_shim(&self, record: &Record) -> Result<()> {
        let Some(shim) = &record.shim else { return Ok(()) };
        process::end(shim)?;
        self.sweep(record)
    }

    /// Removes a container's cgroup and bundle, its shim being dead. Blocks.
    pub(super) fn sweep(&self, record: &Record) -> Result<()> {
        cgroup::destroy(&self.shims.cgroup(record))?;
        bundles::remove(&self.bundle_path(&record.namespace, &record.id))
    }
}

/// Records that a start begins, and by whose will.
fn intend(tx: &Transaction<'_>, record: &Record, by: By) -> Result<()> {
    match by {
        By::User => {
            let restarts = Restarts { wanted: Wanted::Running, ..Restarts::default() };
            rows::set_restarts(tx, &record.id, &restarts)?;
        }
        By::Policy { due } => {
            let now = rows::any(tx, &record.id)?;
            if now.is_none_or(|now| now.restarts.due != due) {
                return Err(Error::new(Kind::Cancelled, "the restart was called off"));
            }
        }
    }
    // Whoever it had is gone: the next engine must not look for that one.
    rows::set_shim(tx, &record.id, None)?;
    rows::transit(tx, &record.id, &[Status::Created, Status::Exited], Status::Starting).map(drop)
}

/// A start has failed: its user has been told, its policy may try again.
fn give_up(tx: &Transaction<'_>, record: &Record, by: By) -> Result<()> {
    match (by, rows::any(tx, &record.id)?) {
        (By::User, _) | (By::Policy { .. }, None) => rows::set_stopped(tx, &record.id),
        (By::Policy { .. }, Some(mut row)) => {
            // Whatever is decided, this one isn't due any more.
            row.restarts.due = 0;
            rows::set_restarts(tx, &row.id, &row.restarts)?;
            policy::judge(tx, &row, Moment::Ended, Duration::ZERO)
        }
    }
}

fn last_words(live: &Live, error: Error) -> Error {
    match live.bundle.shim_messages() {
        words if words.is_empty() => error,
        words => Error::new(error.kind(), format!("{}: {words}", error.chain())),
    }
}

/// Docker's words around the reason.
fn explain(error: Error) -> Error {
    let (kind, code) = (error.kind(), error.exit_code());
    let explained = Error::new(kind, "failed to create task for container").with_source(error.chain());
    match code {
        Some(code) => explained.with_exit_code(code),
        None => explained,
    }
}

/// One overlay, mounted by the shim inside the container's mount namespace.
fn mounts(rootfs: &Rootfs, maps: &[IdMap]) -> Result<Vec<types::Mount>> {
    let text = |path: &Path| {
        let text = path.to_str().filter(|text| !text.contains([':', ',', '\\']));
        text.map(str::to_owned).ok_or_else(|| {
            let what = format!("{} can't be a layer: its path has a ':', ',' or '\\'", path.display());
            Error::new(Kind::FailedPrecondition, what)
        })
    };
    let lower = rootfs.lower.iter().map(|path| text(path)).collect::<Result<Vec<_>>>()?;
    let mut options = vec![
        format!("lowerdir={}", lower.join(":")),
        format!("upperdir={}", text(&rootfs.upper)?),
        format!("workdir={}", text(&rootfs.work)?),
        // Whatever the host's defaults: a layer that speaks of others by
        // attributes is none that diff, commit and a copy could read.
        "redirect_dir=off".to_owned(),
        "metacopy=off".to_owned(),
    ];
    if !maps.is_empty() {
        let list = maps.iter().map(|map| format!("{}:{}:{}", map.container, map.host, map.size));
        let list = list.collect::<Vec<_>>().join(",");
        options.extend([format!("uidmap={list}"), format!("gidmap={list}")]);
    }
    Ok(vec![types::Mount {
        r#type: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options,
    }])
}
