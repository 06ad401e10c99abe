// SPDX-License-Identifier: Apache-2.0
//! What can be asked of the supervisor: plain data, and where the answer goes.

use berth::{api::types::Mount, bundle::ExitRecord, ttrpc::Status};
use oci_spec::runtime::LinuxResources;
use tokio::{net::UnixStream, sync::oneshot};

use super::Phase;
use crate::{io::stdio::Config, kernel::tty::Size, runtime::stats::Stats};

/// Where an answer goes. Nobody may be waiting any more.
pub type Reply<T> = oneshot::Sender<Result<T, Status>>;

/// A request, from any connection.
#[derive(Debug)]
pub enum Call {
    /// Make the container; answers the pid of its first process.
    Create(Box<Create>, Reply<u32>),
    /// Execute its program; answers the pid.
    Start(Reply<u32>),
    /// Send a signal, to the first process or to all.
    Kill(Signal, Reply<()>),
    /// Freeze it.
    Pause(Reply<()>),
    /// Thaw it.
    Resume(Reply<()>),
    /// Free what it held; answers how it ended.
    Delete(Reply<ExitRecord>),
    /// Answers how it ended, once that is on disk.
    Wait(Reply<ExitRecord>),
    /// How it is.
    State(Reply<View>),
    /// Its processes.
    Pids(Reply<Vec<u32>>),
    /// Its counters.
    Stats(Reply<Stats>),
    /// Change its limits.
    Update(Box<LinuxResources>, Reply<()>),
    /// Change the terminal's size.
    Resize(Size, Reply<()>),
    /// No more input.
    CloseStdin(Reply<()>),
    /// End the shim once nothing needs it; kill the container first with `now`.
    Shutdown {
        /// Don't wait for the container's own end.
        now: bool,
        /// Answered at once.
        reply: Reply<()>,
    },
    /// Somebody wants the container's streams.
    Attach(UnixStream),
}

/// How to make the container; its configuration is in the bundle.
#[derive(Debug)]
pub struct Create {
    /// The root file system, to be mounted in this order.
    pub rootfs: Vec<Mount>,
    /// `user[:group]` to resolve inside; empty: the configuration's numbers.
    pub user: String,
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
