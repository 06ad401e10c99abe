// SPDX-License-Identifier: Apache-2.0
//! A shim's Task service, typed: one method per call, each with its time-out.

use std::{
    io,
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth::{
    api::{
        shim::{CreateOptions, ExecOptions, ExecProcess, ListExecsRequest, ListExecsResponse, Log},
        task, types,
    },
    bundle,
    ids::{ContainerId, ExecId},
    ttrpc::{self, Code, client::Client},
};
use oci_spec::runtime::LinuxResources;
use prost::Message as _;
use tokio::net::UnixStream;

use super::{metrics, timeouts};
use crate::{
    domain::{
        state::{WaitAnswer, code_of_wire},
        usage::Usage,
    },
    error::{Error, Kind, Result},
    kernel::socket,
};

const SERVICE: &str = "containerd.task.v3.Task";
/// containerd's name for limits as JSON.
const RESOURCES: &str = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources";
const OPTIONS: &str = "berth.shim.v1.CreateOptions";
/// Name of what changes of a log.
const LOG: &str = "berth.shim.v1.Log";
/// What only our own shim answers.
const SHIM: &str = "berth.shim.v1.Shim";
const EXEC_OPTIONS: &str = "berth.shim.v1.ExecOptions";

/// A connection to a container's shim.
#[derive(Debug, Clone)]
pub struct Task {
    client: Client,
    id: String,
    /// A call has had no answer within its time, and none has had one since.
    silent: Arc<AtomicBool>,
}

/// What a shim says of its container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, or not even that: nothing of it has run.
    NotStarted,
    /// Runs.
    Running,
    /// Runs, frozen.
    Paused,
    /// Has ended.
    Stopped,
}

/// Connects to socket `name` of the bundle `dir`.
///
/// # Errors
/// Those of connect(2), and `TimedOut`.
pub async fn connect(dir: BorrowedFd<'_>, name: &str) -> io::Result<UnixStream> {
    let path = socket::address(dir, name);
    tokio::time::timeout(timeouts::CONNECT, UnixStream::connect(path))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

impl Task {
    /// Connects to the shim whose bundle is `dir`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn connect(dir: BorrowedFd<'_>, id: &ContainerId) -> Result<Self> {
        let stream = connect(dir, bundle::SHIM_SOCKET)
            .await
            .map_err(|e| Error::new(Kind::Unavailable, "connect to the shim").with_source(e))?;
        Ok(Self { client: Client::new(stream), id: id.to_string(), silent: Arc::default() })
    }

    /// Makes the container, up to its first process's execve; its pid.
    ///
    /// # Errors
    /// The shim's, with the exit code for a command that can't be executed.
    pub async fn create(
        &self,
        bundle: &str,
        rootfs: Vec<types::Mount>,
        terminal: Terminal,
        options: &CreateOptions,
    ) -> Result<u32> {
        let request = task::CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.to_owned(),
            rootfs,
            terminal: terminal == Terminal::Yes,
            options: Some(prost_types::Any { type_url: OPTIONS.to_owned(), value: options.encode_to_vec() }),
            ..task::CreateTaskRequest::default()
        };
        let answer: task::CreateTaskResponse = self.execute("Create", &request, timeouts::CREATE).await?;
        Ok(answer.pid)
    }

    /// Lets the first process execute; its pid.
    ///
    /// # Errors
    /// As [`Task::create`].
    pub async fn start(&self) -> Result<u32> {
        let request = task::StartRequest { id: self.id.clone(), ..Default::default() };
        let answer: task::StartResponse = self.execute("Start", &request, timeouts::START).await?;
        Ok(answer.pid)
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `FailedPrecondition` when it has ended; the shim's.
    pub async fn kill(&self, signal: u32) -> Result<()> {
        let request = task::KillRequest { id: self.id.clone(), signal, ..Default::default() };
        self.call("Kill", &request, Some(timeouts::SIGNAL)).await
    }

    /// Changes limits; what isn't set stays.
    ///
    /// # Errors
    /// The shim's: `InvalidArgument` and `Unimplemented` name the field.
    pub async fn update(&self, resources: &LinuxResources) -> Result<()> {
        let value = serde_json::to_vec(resources)
            .map_err(|e| Error::new(Kind::Internal, "encode limits").with_source(e))?;
        let any = prost_types::Any { type_url: RESOURCES.to_owned(), value };
        let request = task::UpdateTaskRequest {
            id: self.id.clone(),
            resources: Some(any),
            ..task::UpdateTaskRequest::default()
        };
        self.call("Update", &request, Some(timeouts::QUICK)).await
    }

    /// Changes how large the log gets, and what each line says besides.
    ///
    /// # Errors
    /// The shim's.
    pub async fn update_log(&self, log: &Log) -> Result<()> {
        let any = prost_types::Any { type_url: LOG.to_owned(), value: log.encode_to_vec() };
        let request = task::UpdateTaskRequest {
            id: self.id.clone(),
            resources: Some(any),
            ..task::UpdateTaskRequest::default()
        };
        self.call("Update", &request, Some(timeouts::QUICK)).await
    }

    /// What the container uses.
    ///
    /// # Errors
    /// The shim's.
    pub async fn stats(&self) -> Result<Usage> {
        let request = task::StatsRequest { id: self.id.clone() };
        let answer: task::StatsResponse = self.call("Stats", &request, Some(timeouts::STATS)).await?;
        metrics::decode(answer.stats)
    }

    /// All processes of the container, in the engine's pid namespace.
    ///
    /// # Errors
    /// The shim's.
    pub async fn pids(&self) -> Result<Vec<u32>> {
        let request = task::PidsRequest { id: self.id.clone() };
        let answer: task::PidsResponse = self.call("Pids", &request, Some(timeouts::QUICK)).await?;
        Ok(answer.processes.into_iter().map(|process| process.pid).collect())
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// `FailedPrecondition` when it doesn't run or is frozen; the shim's.
    pub async fn pause(&self) -> Result<()> {
        let request = task::PauseRequest { id: self.id.clone() };
        self.call("Pause", &request, Some(timeouts::FREEZE)).await
    }

    /// Lets all processes go on.
    ///
    /// # Errors
    /// `FailedPrecondition` when it isn't frozen; the shim's.
    pub async fn resume(&self) -> Result<()> {
        let request = task::ResumeRequest { id: self.id.clone() };
        self.call("Resume", &request, Some(timeouts::FREEZE)).await
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// The shim's.
    pub async fn resize(&self, rows: u32, columns: u32) -> Result<()> {
        let request = task::ResizePtyRequest {
            id: self.id.clone(),
            width: columns,
            height: rows,
            ..Default::default()
        };
        self.call("ResizePty", &request, Some(timeouts::QUICK)).await
    }

    /// How far the container is.
    ///
    /// # Errors
    /// `Unavailable` when there is no answer within `limit`.
    pub async fn phase(&self, limit: Duration) -> Result<Phase> {
        let request = task::StateRequest { id: self.id.clone(), ..Default::default() };
        let state: Result<task::StateResponse> = self.call("State", &request, Some(limit)).await;
        use berth::api::task_types::Status;
        match state {
            Ok(state) => Ok(match state.status() {
                Status::Running => Phase::Running,
                Status::Paused | Status::Pausing => Phase::Paused,
                Status::Stopped => Phase::Stopped,
                Status::Created | Status::Unknown => Phase::NotStarted,
            }),
            Err(e) if e.kind() == Kind::NotFound => Ok(Phase::NotStarted),
            Err(e) => Err(e),
        }
    }

    /// Waits, however long, for the first process's end.
    ///
    /// # Errors
    /// `Unavailable` when the connection ends first.
    pub async fn wait(&self) -> Result<WaitAnswer> {
        let request = task::WaitRequest { id: self.id.clone(), ..Default::default() };
        let answer: task::WaitResponse = self.call("Wait", &request, None).await?;
        Ok(WaitAnswer { exit_code: code_of_wire(answer.exit_status), at: nanos(answer.exited_at) })
    }

    /// Adds a process, which isn't started yet.
    ///
    /// # Errors
    /// The shim's.
    pub async fn add_exec(&self, exec: &ExecId, terminal: Terminal, options: &ExecOptions) -> Result<()> {
        let request = task::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec.to_string(),
            terminal: terminal == Terminal::Yes,
            spec: Some(prost_types::Any {
                type_url: EXEC_OPTIONS.to_owned(),
                value: options.encode_to_vec(),
            }),
            ..Default::default()
        };
        self.call("Exec", &request, Some(timeouts::QUICK)).await
    }

    /// Executes an added process; its pid.
    ///
    /// # Errors
    /// As [`Task::create`].
    pub async fn start_exec(&self, exec: &ExecId) -> Result<u32> {
        let request = task::StartRequest { id: self.id.clone(), exec_id: exec.to_string() };
        let answer: task::StartResponse = self.execute("Start", &request, timeouts::START).await?;
        Ok(answer.pid)
    }

    /// Waits, however long, for the end of a process that was added.
    ///
    /// # Errors
    /// `Unavailable` when the connection ends first.
    pub async fn wait_exec(&self, exec: &ExecId) -> Result<WaitAnswer> {
        let request = task::WaitRequest { id: self.id.clone(), exec_id: exec.to_string() };
        let answer: task::WaitResponse = self.call("Wait", &request, None).await?;
        Ok(WaitAnswer { exit_code: code_of_wire(answer.exit_status), at: nanos(answer.exited_at) })
    }

    /// Sends a signal to a process that was added, or to `all` it has started.
    ///
    /// # Errors
    /// `NotFound` when it has ended or isn't there.
    pub async fn kill_exec(&self, exec: &ExecId, signal: u32, all: bool) -> Result<()> {
        let request = task::KillRequest { id: self.id.clone(), exec_id: exec.to_string(), signal, all };
        self.call("Kill", &request, Some(timeouts::QUICK)).await
    }

    /// Forgets a process that has ended.
    ///
    /// # Errors
    /// The shim's.
    pub async fn delete_exec(&self, exec: &ExecId) -> Result<()> {
        let request = task::DeleteRequest { id: self.id.clone(), exec_id: exec.to_string() };
        self.call::<_, task::DeleteResponse>("Delete", &request, Some(timeouts::QUICK)).await.map(drop)
    }

    /// The processes that were added and are still known.
    ///
    /// # Errors
    /// The shim's.
    pub async fn execs(&self) -> Result<Vec<ExecProcess>> {
        let limit = Some(timeouts::LIST);
        let answer: Result<ListExecsResponse, _> =
            self.client.call(SHIM, "ListExecs", &ListExecsRequest {}, limit).await;
        self.heard(answer).map(|list| list.processes).map_err(error)
    }

    /// Frees what the ended container held.
    ///
    /// # Errors
    /// The shim's.
    pub async fn delete(&self) -> Result<()> {
        let request = task::DeleteRequest { id: self.id.clone(), ..Default::default() };
        self.call::<_, task::DeleteResponse>("Delete", &request, Some(timeouts::DELETE)).await.map(drop)
    }

    /// Ends the shim.
    ///
    /// # Errors
    /// The shim's. One that ends before it answers has done what was asked.
    pub async fn shutdown(&self) -> Result<()> {
        let request = task::ShutdownRequest { id: self.id.clone(), now: false };
        match self.call("Shutdown", &request, Some(timeouts::QUICK)).await {
            Err(e) if e.kind() == Kind::Unavailable => Ok(()),
            done => done,
        }
    }

    /// Whether the shim has left a call without an answer, and is still silent.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Acquire)
    }

    /// Notes whether there was an answer at all. Whoever falls silent is asked
    /// again until there is one or the connection ends.
    fn heard<T>(&self, answer: Result<T, ttrpc::Status>) -> Result<T, ttrpc::Status> {
        let is_late = answer.as_ref().is_err_and(|status| status.code == Code::DeadlineExceeded);
        if self.silent.swap(is_late, Ordering::AcqRel) || !is_late {
            return answer;
        }
        let task = self.clone();
        tokio::spawn(async move {
            while task.is_silent() {
                tokio::time::sleep(timeouts::RETRY).await;
                let answer = task.phase(timeouts::PROBE).await;
                if answer.is_err() && task.client.is_closed() {
                    return;
                }
            }
        });
        answer
    }

    /// A call that executes the user's command: its failures have exit codes.
    async fn execute<M: prost::Message, R: prost::Message + Default>(
        &self,
        method: &str,
        message: &M,
        limit: Duration,
    ) -> Result<R> {
        let answer = self.client.call(SERVICE, method, message, Some(limit)).await;
        self.heard(answer).map_err(|status| match status.code {
            Code::NotFound => Error::new(Kind::FailedPrecondition, status.message).with_exit_code(127),
            Code::PermissionDenied => {
                Error::new(Kind::FailedPrecondition, status.message).with_exit_code(126)
            }
            _ => error(status),
        })
    }

    async fn call<M: prost::Message, R: prost::Message + Default>(
        &self,
        method: &str,
        message: &M,
        limit: Option<Duration>,
    ) -> Result<R> {
        let answer = self.client.call(SERVICE, method, message, limit).await;
        self.heard(answer).map_err(error)
    }
}

/// Whether a container has a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// It has.
    Yes,
    /// Pipes instead.
    No,
}

impl From<bool> for Terminal {
    fn from(tty: bool) -> Self {
        if tty { Self::Yes } else { Self::No }
    }
}

fn error(status: ttrpc::Status) -> Error {
    let kind = match status.code {
        Code::NotFound => Kind::NotFound,
        Code::AlreadyExists => Kind::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => Kind::InvalidArgument,
        Code::FailedPrecondition => Kind::FailedPrecondition,
        Code::Unavailable | Code::Cancelled | Code::Aborted | Code::DeadlineExceeded => Kind::Unavailable,
        Code::ResourceExhausted => Kind::ResourceExhausted,
        Code::Unimplemented => Kind::Unimplemented,
        Code::PermissionDenied | Code::Unauthenticated => Kind::PermissionDenied,
        Code::DataLoss => Kind::DataLoss,
        Code::Unknown | Code::Internal => Kind::Internal,
    };
    Error::new(kind, status.message)
}

fn nanos(time: Option<prost_types::Timestamp>) -> u64 {
    let time = time.unwrap_or_default();
    let (seconds, nanos) = (u64::try_from(time.seconds), u64::try_from(time.nanos));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0))
}
