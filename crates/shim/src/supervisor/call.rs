// SPDX-License-Identifier: Apache-2.0
//! What can be asked of the supervisor: plain data, and where the answer goes.

use std::time::Duration;

use berth::{
    api::{shim::ExecProcess, types::Mount},
    bundle::ExitRecord,
    ids::ExecId,
    ttrpc::Status,
};
use oci_spec::runtime::{LinuxResources, Process};
use tokio::sync::oneshot;

use super::Phase;
use crate::{
    io::{attach::Client, log::Settings, stdio::Config},
    kernel::tty::Size,
    runtime::stats::Stats,
};

/// Where an answer goes. Nobody may be waiting any more.
pub type Reply<T> = oneshot::Sender<Result<T, Status>>;

/// Whose call it is: the container's first process, or one that joined it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// The first; with its end the container ends.
    Init,
    /// One of [`Call::Exec`].
    Exec(ExecId),
}

/// A request, from any connection.
#[derive(Debug)]
pub enum Call {
    /// Make the container; answers the pid of its first process.
    Create(Box<Create>, Reply<u32>),
    /// Add a process to the container; it is started later.
    Exec(Box<AddExec>, Reply<()>),
    /// Execute its program; answers the pid.
    Start(Whose, Reply<u32>),
    /// Send a signal, to the process or to all that belong to it.
    Kill(Whose, Signal, Reply<()>),
    /// Freeze the container.
    Pause(Reply<()>),
    /// Thaw it.
    Resume(Reply<()>),
    /// Free what it held; answers how it ended.
    Delete(Whose, Reply<ExitRecord>),
    /// Answers how it ended, once that is on disk; of a process that has
    /// joined, once its output has been read.
    Wait(Whose, Reply<ExitRecord>),
    /// How it is.
    State(Whose, Reply<View>),
    /// The container's processes.
    Pids(Reply<Vec<u32>>),
    /// Processes that have joined.
    ListExecs(Reply<Vec<ExecProcess>>),
    /// The container's counters.
    Stats(Reply<Stats>),
    /// Change it while it runs.
    Update(Change, Reply<()>),
    /// Change the terminal's size.
    Resize(Whose, Size, Reply<()>),
    /// No more input.
    CloseStdin(Whose, Reply<()>),
    /// End the shim once nothing needs it; kill the container first with `now`.
    Shutdown {
        /// Don't wait for the container's own end.
        now: bool,
        /// Answered at once.
        reply: Reply<()>,
    },
    /// Somebody wants a process' streams.
    Attach(Client),
}

/// A process that is to join the container.
#[derive(Debug)]
pub struct AddExec {
    /// Its id.
    pub id: ExecId,
    /// What to execute.
    pub process: Process,
    /// `user[:group]` to resolve inside; empty: the process' numbers.
    pub user: String,
    /// The standard streams.
    pub stdio: Config,
    /// What [`View::streams`] says.
    pub streams: Streams,
    /// What the end of an attached client's connection means to it.
    pub on_disconnect: OnDisconnect,
}

/// What becomes of a process when a client that attached to it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDisconnect {
    /// Nothing.
    GoOn,
    /// It is killed, and what it has started with it.
    Kill,
}

/// How to make the container; its configuration is in the bundle.
#[derive(Debug)]
pub struct Create {
    /// The root file system, to be mounted in this order.
    pub rootfs: Vec<Mount>,
    /// `user[:group]` to resolve inside; empty: the configuration's numbers.
    pub user: String,
    /// The configuration's seccomp profile, compiled; empty: not yet.
    pub filter: Vec<u8>,
    /// The first process is ours, with the program as its child.
    pub init: bool,
    /// How long it may run; unset: as long as it wants.
    pub limit: Option<Duration>,
    /// The standard streams.
    pub stdio: Config,
    /// What [`View::streams`] says.
    pub streams: Streams,
}

/// The standard streams as the request named them.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// Path or URI of stdin.
    pub stdin: String,
    /// Path or URI of stdout.
    pub stdout: String,
    /// Path or URI of stderr.
    pub stderr: String,
    /// There is a terminal.
    pub terminal: bool,
}

/// A signal and who gets it.
#[derive(Debug, Clone, Copy)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// All processes of the container instead of the first.
    pub all: bool,
}

/// What is known of the container.
#[derive(Debug, Clone)]
pub struct View {
    /// Where it is in its life.
    pub phase: Phase,
    /// Its first process, also when that has ended.
    pub pid: u32,
    /// Its standard streams.
    pub streams: Streams,
}

/// What of a container can be changed.
#[derive(Debug)]
pub enum Change {
    /// Its limits.
    Resources(Box<LinuxResources>),
    /// Its log.
    Log(Settings),
}
