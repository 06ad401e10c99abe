// SPDX-License-Identifier: Apache-2.0
//! The engine's start: what the last engine left is taken over, finished or
//! undone. The only code that looks for orphans.
//!
//! Unknown is not dead: a container is called ended only with proof (its
//! shim's process is gone), and one whose shim doesn't answer is asked again.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use berth::{bundle, ids::ContainerId};

use super::{Containers, Entry, Live, Phase, ToldOnce, end::Shim, exec_events::Untold};
use crate::{
    domain::{
        record::Record,
        restart::{Moment, Wanted},
        spec::resources,
        state::{ExitEvidence, Status},
    },
    error::{Context as _, Error, Kind, Result},
    kernel::pidfd,
    shim::{
        bundle::{self as bundles, Bundle},
        cgroup, limits,
        process::Process,
        search,
        task::{self, Task},
        timeouts,
    },
    store::meta::containers as rows,
};

/// What became of a shim that was looked for.
enum Found {
    /// It answers.
    Answers(Arc<Live>, task::Phase),
    /// It is there and silent.
    Silent(Arc<Live>, Error),
    /// It is gone; this is what it left.
    Gone(Box<ExitEvidence>),
}

impl Containers {
    /// Takes over what the last engine left. Returns when every shim has
    /// answered, or [`timeouts::RECONCILE_GRACE`] has passed: the rest goes on
    /// in the background, its containers `unknown` meanwhile.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn reconcile(self: &Arc<Self>) -> Result<()> {
        let unsettled = self.blocking(|this| this.db.read(rows::unsettled)).await?;
        let told = Arc::new(ToldOnce::new());
        let mut work = tokio::task::JoinSet::new();
        for record in unsettled {
            let entry = self.entry(&record.id);
            if matches!(record.status, Status::Running | Status::Starting) {
                entry.set(Phase::Unreachable(None));
            }
            let (this, told) = (Arc::clone(self), Arc::clone(&told));
            work.spawn(async move { this.resume(entry, record, &told).await });
        }
        let this = Arc::clone(self);
        work.spawn(async move { this.remove_orphans().await });
        let all = async { while work.join_next().await.is_some() {} };
        if tokio::time::timeout(timeouts::RECONCILE_GRACE, all).await.is_err() {
            tracing::info!(left = work.len(), "reconciliation goes on in the background");
        }
        work.detach_all();
        let logged = self.blocking(|this| this.db.read(rows::forwarded)).await?;
        self.forward_leftovers(&logged);
        Ok(())
    }

    async fn resume(self: Arc<Self>, entry: Arc<Entry>, record: Record, told: &ToldOnce) {
        let resumed = match record.status {
            Status::Creating => {
                let row = record.clone();
                self.blocking(move |this| this.unmake(&row)).await
            }
            Status::Starting | Status::Running => self.resume_live(&entry, &record, told).await,
            // Its end is recorded: the rest of the clean-up is missing.
            Status::Exited => self.resume_exited(&entry, &record).await,
            Status::Removing => {
                let _gate = entry.gate.lock().await;
                self.remove_locked(&entry, &record).await
            }
            Status::Created => Ok(()),
        };
        if let Err(e) = resumed {
            tracing::error!(id = %record.id, error = e.chain(), "take over a container");
        }
    }

    /// Finds the shim again, however long that takes.
    async fn resume_live(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Record,
        told: &ToldOnce,
    ) -> Result<()> {
        loop {
            let gate = entry.gate.lock().await;
            // Somebody may have lost patience and removed it.
            if !self.is_unsettled(record).await? {
                return Ok(());
            }
            match self.look_for(record).await {
                Ok(Found::Answers(live, phase)) => {
                    return self.take_over(entry, record, live, phase, told).await;
                }
                Ok(Found::Gone(evidence)) => {
                    let exit = evidence.merge();
                    return self.conclude(entry, record, exit).await;
                }
                Ok(Found::Silent(live, e)) => {
                    tracing::warn!(id = %record.id, error = e.chain(), "a shim does not answer");
                    entry.set(Phase::Unreachable(Some(Arc::clone(&live))));
                    drop(gate);
                    // Its death is noticed at once, its recovery soon.
                    if tokio::time::timeout(timeouts::RETRY, live.shim.ended()).await.is_ok() {
                        return self.silent_died(entry, record, &live).await;
                    }
                }
                Err(e) => {
                    tracing::warn!(id = %record.id, error = e.chain(), "look for a shim");
                    drop(gate);
                    tokio::time::sleep(timeouts::RETRY).await;
                }
            }
        }
    }

    /// A shim has died that had not been heard of.
    async fn silent_died(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Record,
        live: &Arc<Live>,
    ) -> Result<()> {
        let _gate = entry.gate.lock().await;
        if !self.is_unsettled(record).await? {
            return Ok(());
        }
        let exit = self.shim_died(live).await;
        self.conclude(entry, record, exit).await
    }

    async fn is_unsettled(self: &Arc<Self>, record: &Record) -> Result<bool> {
        let now = self.reload(record).await?;
        Ok(now.is_some_and(|now| matches!(now.status, Status::Starting | Status::Running)))
    }

    /// Ends a container that is out of reach: its bundle or its socket is gone.
    /// The gate is held.
    pub(super) async fn end_unreachable(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) -> Result<()> {
        let shim = record.shim.as_ref().map(Process::find).transpose()?.flatten();
        let path = self.bundle_path(&record.namespace, &record.id);
        // A record that is damaged, or gone, keeps nobody from removing it.
        let init = bundle_of(&path).ok().flatten().and_then(|bundle| bundle.init().ok().flatten());
        let init = init.as_ref().map(Process::find).transpose()?.flatten();
        let row = record.clone();
        self.blocking(move |this| {
            // The row doesn't know of one that was started a moment before the
            // last engine's end.
            kill_shims_in(&this.bundle_path(&row.namespace, &row.id))?;
            cgroup::destroy(&this.shims.cgroup(&row))
        })
        .await?;
        for process in [shim, init].into_iter().flatten() {
            process.kill()?;
            drop(tokio::time::timeout(timeouts::KILLED, process.ended()).await);
        }
        if record.status == Status::Starting {
            return self.withdraw(entry, record).await;
        }
        let evidence = ExitEvidence {
            record: bundle_of(&path).ok().flatten().and_then(|bundle| bundle.exit().ok().flatten()),
            killed: true,
            noticed_at: bundle::now_nanos(),
            reason: "the container's shim could not be reached, and it was removed".to_owned(),
            ..ExitEvidence::default()
        };
        self.settle(entry, record, evidence.merge(), Moment::Ended).await;
        self.clean_up(entry, record, None, Shim::Dead).await;
        Ok(())
    }

    async fn look_for(self: &Arc<Self>, record: &Record) -> Result<Found> {
        let path = self.bundle_path(&record.namespace, &record.id);
        let Some(shim) = find_shim(&path, record)? else {
            return self.evidence(record, &path).await.map(Box::new).map(Found::Gone);
        };
        // Without it nobody can speak to the shim; but that it lives is a fact.
        let bundle = Bundle::open(&path)?;
        let task = match Task::connect(bundle.dir(), &record.id).await {
            Ok(task) => task,
            // It died between the two looks, or its socket is gone: the
            // process decides.
            Err(e) if shim.wait_status().is_ok_and(|status| status.is_some()) => {
                tracing::debug!(id = %record.id, error = e.chain(), "a shim died just now");
                return self.evidence(record, &path).await.map(Box::new).map(Found::Gone);
            }
            Err(e) => return Err(e),
        };
        let live = Arc::new(Live {
            namespace: record.namespace.clone(),
            id: record.id.clone(),
            cgroup: self.shims.cgroup(record),
            init: std::sync::OnceLock::new(),
            untold: Untold::default(),
            bundle,
            shim,
            task,
        });
        if let Some(identity) = live.bundle.init()?
            && let Some(init) = Process::find(&identity)?
        {
            drop(live.init.set(init));
        }
        tokio::select! {
            phase = live.task.phase(timeouts::PROBE) => match phase {
                Ok(phase) => Ok(Found::Answers(live, phase)),
                Err(e) => Ok(Found::Silent(live, e)),
            },
            ended = live.shim.ended() => {
                ended?;
                self.evidence(record, &path).await.map(Box::new).map(Found::Gone)
            }
        }
    }

    /// The shim is dead: what it wrote, and what the kernel knows.
    async fn evidence(self: &Arc<Self>, record: &Record, path: &Path) -> Result<ExitEvidence> {
        let same_boot = match &record.shim {
            Some(shim) => shim.boot_id == pidfd::boot_id().context("read this boot's id")?,
            None => true,
        };
        let bundle = bundle_of(path)?;
        let init = match &bundle {
            Some(bundle) => bundle.init()?.as_ref().map(Process::find).transpose()?.flatten(),
            None => None,
        };
        let mut evidence = ExitEvidence {
            record: bundle.as_ref().map(Bundle::exit).transpose()?.flatten(),
            noticed_at: bundle::now_nanos(),
            reason: if same_boot {
                "the container's shim has died while the engine was down".to_owned()
            } else {
                "the host was restarted while the container ran".to_owned()
            },
            ..ExitEvidence::default()
        };
        if evidence.record.is_none()
            && let Some(init) = init
        {
            let group = self.shims.cgroup(record);
            self.blocking(move |_| cgroup::destroy(&group)).await?;
            evidence.killed = true;
            drop(tokio::time::timeout(timeouts::KILLED, init.ended()).await);
            evidence.wait_status = init.wait_status().context("ask how a process ended")?;
        }
        Ok(evidence)
    }

    async fn take_over(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Record,
        live: Arc<Live>,
        phase: task::Phase,
        told: &ToldOnce,
    ) -> Result<()> {
        if phase == task::Phase::NotStarted {
            // Nobody was told that it had started: it hasn't.
            live.shim.kill()?;
            drop(tokio::time::timeout(timeouts::KILLED, live.shim.ended()).await);
            return self.withdraw(entry, record).await;
        }
        if record.status == Status::Starting {
            let pid = live.init.get().map_or(0, |init| init.identity().pid);
            let (row, shim) = (record.clone(), live.shim.identity().clone());
            self.blocking(move |this| this.db.write(|tx| rows::set_shim(tx, &row.id, Some(&shim)))).await?;
            self.record_running(record, pid).await?;
        }
        // Before its own end is told, and before there can be others.
        self.adopt_execs(&live, told).await;
        entry.set(Phase::Running(Arc::clone(&live)));
        // The last engine may have died between the deed and its record.
        let paused = phase == task::Phase::Paused;
        if paused != record.paused && phase != task::Phase::Stopped {
            self.record_paused(record, paused).await?;
        }
        self.limit_again(entry, record, &live);
        // One that has stopped meanwhile says so to the watcher's first question.
        self.watch(Arc::clone(entry), record.clone(), live, None);
        Ok(())
    }

    /// The last engine may have died in a change of limits that nobody was told
    /// of: what its row says counts.
    fn limit_again(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record, live: &Arc<Live>) {
        let (this, entry, live) = (Arc::clone(self), Arc::clone(entry), Arc::clone(live));
        let id = record.id.clone();
        tokio::spawn(async move {
            let _gate = entry.gate.lock().await;
            if entry.running().is_none() {
                return;
            }
            let (document, cgroup) = (id.clone(), live.cgroup.clone());
            let differing = this.blocking(move |this| {
                let host = this.read_document(&document)?.config.host;
                let differences = limits::in_force(&cgroup)?.differences(&host);
                let limits: Vec<_> = differences.iter().map(|one| one.limit).collect();
                Ok((!limits.is_empty()).then(|| resources::again(&host, &limits)))
            });
            let set = match differing.await {
                Ok(Some(resources)) => live.task.update(&resources).await,
                other => other.map(drop),
            };
            if let Err(e) = set {
                tracing::warn!(%id, error = e.chain(), "set a container's limits again");
            }
        });
    }

    /// It has ended; the gate is held.
    async fn conclude(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Record,
        exit: crate::domain::state::Exit,
    ) -> Result<()> {
        let ran = record.status == Status::Running || exit.error.is_empty();
        if !ran {
            // `starting`, no shim and no exit record: it never ran.
            return self.withdraw(entry, record).await;
        }
        if record.status == Status::Starting {
            // It ran, and nobody was told.
            self.record_running(record, 0).await?;
        }
        self.settle(entry, record, exit, Moment::EngineStart).await;
        self.clean_up(entry, record, None, Shim::Dead).await;
        Ok(())
    }

    /// A start that nobody was told of is undone; the gate is held.
    async fn withdraw(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) -> Result<()> {
        let row = record.clone();
        self.blocking(move |this| {
            // The last engine may have died between its shim's start and the
            // record of it.
            kill_shims_in(&this.bundle_path(&row.namespace, &row.id))?;
            this.sweep(&row)?;
            let before = if row.exit.at == 0 { Status::Created } else { Status::Exited };
            this.db.write(|tx| {
                rows::transit(tx, &row.id, &[Status::Starting, Status::Running], before)?;
                if before == Status::Created && row.restarts.wanted == Wanted::Running {
                    rows::set_stopped(tx, &row.id)?;
                }
                rows::set_shim(tx, &row.id, None)
            })
        })
        .await?;
        entry.set(Phase::Idle);
        self.judge_at_start(record).await?;
        self.follow_policy(entry, record).await;
        Ok(())
    }

    async fn resume_exited(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) -> Result<()> {
        let _gate = entry.gate.lock().await;
        // It may have been started again, or removed, since the list was made.
        match self.reload(record).await? {
            Some(now) if now.status == Status::Exited && now.exit == record.exit => {}
            _ => return Ok(()),
        }
        // It has nothing left to say, and its bundle may be gone already.
        let row = record.clone();
        self.blocking(move |this| this.end_left_shim(&row)).await?;
        self.judge_at_start(record).await?;
        self.clean_up(entry, record, None, Shim::Dead).await;
        Ok(())
    }

    /// Shims, bundles and cgroups below our own directories that no row knows,
    /// or whose row knows of no shim.
    async fn remove_orphans(self: &Arc<Self>) {
        let swept = self
            .blocking(|this| {
                this.kill_orphan_shims()?;
                this.remove_orphan_bundles()?;
                this.remove_orphan_cgroups()?;
                this.at_rest_with_leftovers()
            })
            .await;
        let swept = match swept {
            Ok(leftovers) => self.sweep_leftovers(leftovers).await,
            Err(e) => Err(e),
        };
        if let Err(e) = swept {
            tracing::error!(error = e.chain(), "remove what no container owns");
        }
    }

    /// Containers at rest that have a bundle or a cgroup all the same: their
    /// rows come from a copy of the database that is older than they are.
    fn at_rest_with_leftovers(&self) -> Result<Vec<Record>> {
        let mut rows = self.db.read(rows::every)?;
        rows.retain(is_at_rest);
        let groups = cgroup::Children::of(rows.iter().map(|row| self.shims.parent_of(row)))?;
        rows.retain(|row| {
            groups.has(&self.shims.parent_of(row), &row.cgroup_name())
                || self.bundle_path(&row.namespace, &row.id).exists()
        });
        Ok(rows)
    }

    async fn sweep_leftovers(self: &Arc<Self>, leftovers: Vec<Record>) -> Result<()> {
        for row in leftovers {
            let entry = self.entry(&row.id);
            let _gate = entry.gate.lock().await;
            // It may have been started since the list was made.
            match self.reload(&row).await? {
                Some(now) if is_at_rest(&now) => {}
                _ => continue,
            }
            tracing::warn!(id = %row.id, "what a container at rest still holds is removed");
            self.blocking(move |this| this.sweep(&row)).await?;
        }
        Ok(())
    }

    /// A shim may have been started and not recorded; its working directory is
    /// its bundle.
    fn kill_orphan_shims(&self) -> Result<()> {
        for shim in search::below(&self.paths.state.join("bundles"))? {
            let Some(id) = shim.container() else { continue };
            if !self.knows_shim(&id, shim.pid)? {
                tracing::warn!(pid = shim.pid, %id, "a shim that no container owns is killed");
                shim.kill()?;
            }
        }
        Ok(())
    }

    fn knows_shim(&self, id: &ContainerId, pid: u32) -> Result<bool> {
        let known = self.db.read(|c| rows::any(c, id))?;
        // Without a recorded shim the bundle's record counts, as in look_for;
        // one that neither has is killed with its start's withdrawal.
        Ok(known.is_some_and(|record| match (&record.shim, record.status) {
            (Some(shim), _) => shim.pid == pid,
            (None, Status::Starting | Status::Running) => true,
            (None, _) => false,
        }))
    }

    fn remove_orphan_bundles(&self) -> Result<()> {
        for namespace in subdirectories(&self.paths.state.join("bundles"))? {
            for path in subdirectories(&namespace)? {
                let id = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
                let known = match &id {
                    Some(id) => self.db.read(|c| rows::any(c, id))?.is_some(),
                    None => false,
                };
                if !known {
                    tracing::warn!(path = %path.display(), "a bundle that no container owns is removed");
                    bundles::remove(&path)?;
                }
            }
        }
        Ok(())
    }

    fn remove_orphan_cgroups(&self) -> Result<()> {
        let parent = self.shims.cgroup_parent();
        let names = cgroup::children(parent)?;
        let known: HashSet<String> = self.db.read(|c| {
            let rows = rows::every(c)?;
            Ok(rows.iter().filter_map(|row| row.below_cgroup(parent)).collect())
        })?;
        for name in names {
            if !known.contains(&name) && Record::is_cgroup_name(&name) {
                tracing::warn!(name, "a cgroup that no container owns is removed");
                cgroup::destroy(&format!("{parent}/{name}"))?;
            }
        }
        Ok(())
    }
}

/// The shim that the row, or else the bundle, speaks of; `None` when it is gone.
fn find_shim(path: &Path, record: &Record) -> Result<Option<Process>> {
    let identity = match &record.shim {
        Some(shim) => Some(shim.clone()),
        None => bundle_of(path)?.map(|bundle| bundle.shim()).transpose()?.flatten(),
    };
    identity.as_ref().map(Process::find).transpose().map(Option::flatten)
}

/// The bundle, if it is there.
fn bundle_of(path: &Path) -> Result<Option<Bundle>> {
    match Bundle::open(path) {
        Ok(bundle) => Ok(Some(bundle)),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Neither runs nor is about to, and nothing of it is left to be freed.
fn is_at_rest(row: &Record) -> bool {
    matches!(row.status, Status::Created | Status::Exited) && row.shim.is_none()
}

/// Kills every shim that serves this very bundle; its container's gate is held.
fn kill_shims_in(bundle: &Path) -> Result<()> {
    for shim in search::below(bundle)? {
        tracing::warn!(pid = shim.pid, bundle = %bundle.display(), "a shim that was never recorded is killed");
        shim.kill()?;
    }
    Ok(())
}

fn subdirectories(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(format!("list {}", dir.display()), e)),
    };
    entries.map(|entry| entry.map(|e| e.path()).context("list bundles")).collect()
}
