// SPDX-License-Identifier: Apache-2.0
//! What the engine holds in memory of a container: who may change it, how its
//! shim is reached, and who waits for what happens to it.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use berth::ids::{ContainerId, Namespace};
use tokio::sync::{Notify, Semaphore, watch};

use super::exec_events::Untold;
use crate::{
    domain::state::Exit,
    error::Result,
    shim::{bundle::Bundle, cgroup, files::Running, process::Process, task::Task, timeouts},
};

/// One container, as long as anybody is interested in it.
#[derive(Debug)]
pub struct Entry {
    /// Held while the container changes (start, the end, removal): an async
    /// lock, of this container alone, whose holder never waits for another
    /// container and for a shim only with a time-out.
    pub(super) gate: tokio::sync::Mutex<()>,
    view: watch::Sender<View>,
    /// Clients that attached before the start and are not connected yet.
    attachers: watch::Sender<usize>,
    /// Processes that have the layers mounted while the container doesn't run.
    copies: Mutex<Vec<Weak<Running>>>,
    /// Tasks that hand its log on may be two: the second sees to it that the
    /// first has left nothing.
    pub(super) forwarders: Arc<Semaphore>,
    /// Held by the one that is at it.
    pub(super) forwarding: tokio::sync::Mutex<()>,
    /// The options of its log have changed.
    pub(super) log_options: Notify,
    /// The check of its health has changed.
    health_checks: watch::Sender<()>,
    /// Its shim is killed because it is to be.
    doomed: AtomicBool,
    /// Restarts that are between their stop and their start.
    kept: AtomicUsize,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            gate: tokio::sync::Mutex::default(),
            view: watch::Sender::default(),
            attachers: watch::Sender::default(),
            copies: Mutex::default(),
            forwarders: Arc::new(Semaphore::new(2)),
            forwarding: tokio::sync::Mutex::default(),
            log_options: Notify::new(),
            health_checks: watch::Sender::default(),
            doomed: AtomicBool::new(false),
            kept: AtomicUsize::new(0),
        }
    }
}

/// What can be seen of a container without asking anybody.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Where its shim is.
    pub phase: Phase,
    /// How often it has ended, failed starts included.
    pub ends: u64,
    /// How it ended last.
    pub last: Exit,
    /// When its policy has it started; nanoseconds since the Unix epoch, 0
    /// for not.
    pub due: u64,
    /// How often that was called off.
    pub rests: u64,
}

/// Where a container's shim is.
#[derive(Debug, Clone, Default)]
pub enum Phase {
    /// Nowhere.
    #[default]
    Idle,
    /// Everything is set up; the first process waits for its start.
    Prepared(Arc<Live>),
    /// The first process runs.
    Running(Arc<Live>),
    /// The shim is there, or may be, and doesn't answer.
    Unreachable(Option<Arc<Live>>),
    /// The container is gone for good.
    Removed,
}

/// A container's shim, reachable.
#[derive(Debug)]
pub struct Live {
    /// The container's tenant.
    pub namespace: Namespace,
    /// The container.
    pub id: ContainerId,
    /// The container's cgroup, below each hierarchy.
    pub cgroup: String,
    /// Its sockets and records.
    pub bundle: Bundle,
    /// The shim.
    pub shim: Process,
    /// The shim's calls.
    pub task: Task,
    /// The first process, once there is one.
    pub init: std::sync::OnceLock<Process>,
    /// What is still to be told of those that have joined.
    pub(in crate::lifecycle) untold: Untold,
}

impl Live {
    /// Ends everything without the shim's help: the last resort. Blocks.
    ///
    /// # Errors
    /// Those of the host.
    pub(super) fn destroy(&self) -> Result<()> {
        self.shim.kill()?;
        cgroup::destroy(&self.cgroup)
    }
}

impl Entry {
    /// What can be seen now.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Follows what can be seen.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// The shim of a container that runs.
    #[must_use]
    pub fn running(&self) -> Option<Arc<Live>> {
        match &self.view.borrow().phase {
            Phase::Running(live) => Some(Arc::clone(live)),
            _ => None,
        }
    }

    /// The shim, whatever it is doing.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        match &self.view.borrow().phase {
            Phase::Running(live) | Phase::Prepared(live) | Phase::Unreachable(Some(live)) => {
                Some(Arc::clone(live))
            }
            _ => None,
        }
    }

    pub(super) fn set(&self, phase: Phase) {
        self.view.send_modify(|view| view.phase = phase);
    }

    pub(super) fn ended(&self, exit: Exit) {
        self.view.send_modify(|view| {
            view.phase = Phase::Idle;
            view.ends += 1;
            view.last = exit;
        });
    }

    /// Its policy has it started at `due`; 0: it is being started.
    pub(super) fn set_due(&self, due: u64) {
        self.view.send_modify(|view| view.due = due);
    }

    /// Nothing has it started: it rests.
    pub(super) fn rest(&self) {
        self.view.send_modify(|view| {
            view.due = 0;
            view.rests += 1;
        });
    }

    /// Announces a client that is about to connect to the shim: the first
    /// process isn't started while the result lives.
    #[must_use]
    pub fn attaching(self: &Arc<Self>) -> Attaching {
        self.attachers.send_modify(|n| *n += 1);
        Attaching(Arc::clone(self))
    }

    /// Its shim, which doesn't answer, is about to be killed with it.
    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    /// Whether the shim that has just died was killed on purpose.
    pub(super) fn was_doomed(&self) -> bool {
        self.doomed.swap(false, Ordering::AcqRel)
    }

    /// Follows changes of the check of its health.
    pub(super) fn health_checks(&self) -> watch::Receiver<()> {
        self.health_checks.subscribe()
    }

    /// Its health is to be checked in another way, or not any more.
    pub(super) fn health_check_changed(&self) {
        self.health_checks.send_replace(());
    }

    /// Remembers a process that has the layers mounted.
    pub(super) fn copying(&self, process: &Arc<Running>) {
        let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        copies.retain(|copy| copy.strong_count() > 0);
        copies.push(Arc::downgrade(process));
    }

    /// Ends all processes that have the layers mounted.
    ///
    /// # Errors
    /// Those of the kernel.
    pub(super) fn end_copies(&self) -> Result<()> {
        let copies = std::mem::take(&mut *self.copies.lock().unwrap_or_else(PoisonError::into_inner));
        copies.iter().filter_map(Weak::upgrade).try_for_each(|copy| copy.kill())
    }

    /// Has the container's end not remove it (`--rm`) while the result lives.
    pub(super) fn keep(self: &Arc<Self>) -> Kept {
        self.kept.fetch_add(1, Ordering::AcqRel);
        Kept(Arc::clone(self))
    }

    pub(super) fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire) > 0
    }

    /// Waits for the announced clients, but not for ever.
    pub(super) async fn attached(&self) {
        let mut attachers = self.attachers.subscribe();
        let all = attachers.wait_for(|n| *n == 0);
        if tokio::time::timeout(timeouts::ATTACHERS, all).await.is_err() {
            tracing::warn!("a client that attached before the start has not connected; starting without it");
        }
    }
}

/// See [`Entry::keep`].
#[derive(Debug)]
pub(super) struct Kept(Arc<Entry>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.kept.fetch_sub(1, Ordering::AcqRel);
    }
}

/// See [`Entry::attaching`].
#[derive(Debug)]
pub struct Attaching(Arc<Entry>);

impl Drop for Attaching {
    fn drop(&mut self) {
        self.0.attachers.send_modify(|n| *n -= 1);
    }
}
