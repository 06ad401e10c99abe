// SPDX-License-Identifier: Apache-2.0
//! The Task service: decode, one call of the supervisor, encode.

use std::path::PathBuf;

use berth::{
    api::{
        shim::ListExecsResponse,
        task::{
            CloseIoRequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
            DeleteRequest, DeleteResponse, ExecProcessRequest, KillRequest, PauseRequest, PidsRequest,
            PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse,
            StateRequest, StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest,
            WaitResponse,
        },
        task_types::{ProcessInfo, Status as TaskStatus},
    },
    bundle::ExitRecord,
    ids::ContainerId,
    ttrpc::{Code, Status, server},
};
use prost::Message;
use prost_types::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{create, exec, metrics};
use crate::supervisor::{
    Phase,
    call::{Call, Reply, Signal, View, Whose},
};

/// Both versions of the protocol: the messages are the same.
const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// What only our engine asks.
const SHIM: &str = "berth.shim.v1.Shim";

/// The service of one container.
#[derive(Debug, Clone)]
pub(super) struct TaskService {
    id: ContainerId,
    bundle: PathBuf,
    supervisor: mpsc::Sender<Call>,
}

impl server::Service for TaskService {
    async fn call(&self, service: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
        if service != SHIM && !SERVICES.contains(&service) {
            return Err(Status::new(Code::Unimplemented, format!("unknown service {service}")));
        }
        if service == SHIM {
            return match method {
                "ListExecs" => self.list_execs().await.map(encode),
                _ => Err(Status::new(Code::Unimplemented, format!("unknown method {method}"))),
            };
        }
        match method {
            "State" => self.state(server::decode(payload)?).await.map(encode),
            "Create" => self.create(server::decode(payload)?).await.map(encode),
            "Start" => self.start(server::decode(payload)?).await.map(encode),
            "Delete" => self.delete(server::decode(payload)?).await.map(encode),
            "Pids" => self.pids(server::decode(payload)?).await.map(encode),
            "Pause" => self.pause(server::decode(payload)?).await.map(encode),
            "Resume" => self.resume(server::decode(payload)?).await.map(encode),
            "Kill" => self.kill(server::decode(payload)?).await.map(encode),
            "ResizePty" => self.resize(server::decode(payload)?).await.map(encode),
            "CloseIO" => self.close_io(server::decode(payload)?).await.map(encode),
            "Wait" => self.wait(server::decode(payload)?).await.map(encode),
            "Connect" => self.connect(server::decode(payload)?).await.map(encode),
            "Shutdown" => self.shutdown(server::decode(payload)?).await.map(encode),
            "Stats" => self.stats(server::decode(payload)?).await.map(encode),
            "Update" => self.update(server::decode(payload)?).await.map(encode),
            "Exec" => self.exec(server::decode(payload)?).await.map(encode),
            "Checkpoint" => Err(Status::new(
                Code::Unimplemented,
                "Checkpoint is not supported by this version of berth-shim",
            )),
            _ => Err(Status::new(Code::Unimplemented, format!("unknown method {method}"))),
        }
    }
}

impl TaskService {
    pub(super) fn new(id: ContainerId, bundle: PathBuf, supervisor: mpsc::Sender<Call>) -> Self {
        Self { id, bundle, supervisor }
    }

    async fn state(&self, request: StateRequest) -> Result<StateResponse, Status> {
        let whose = self.whose(&request.id, &request.exec_id)?;
        let View { phase, pid, streams } = self.ask(|reply| Call::State(whose, reply)).await?;
        let exit = if let Phase::Stopped(record) = &phase { Some(record) } else { None };
        Ok(StateResponse {
            id: request.id,
            bundle: self.bundle.to_string_lossy().into_owned(),
            pid,
            status: task_status(&phase).into(),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            terminal: streams.terminal,
            exit_status: exit.map_or(0, |record| record.exit_code.into()),
            exited_at: exit.map(exited_at),
            exec_id: request.exec_id,
        })
    }

    async fn create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse, Status> {
        self.check(&request.id)?;
        let create = Box::new(create::read(request)?);
        let pid = self.ask(|reply| Call::Create(create, reply)).await?;
        Ok(CreateTaskResponse { pid })
    }

    async fn start(&self, request: StartRequest) -> Result<StartResponse, Status> {
        let whose = self.whose(&request.id, &request.exec_id)?;
        Ok(StartResponse { pid: self.ask(|reply| Call::Start(whose, reply)).await? })
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Status> {
        let whose = self.whose(&request.id, &request.exec_id)?;
        let record = self.ask(|reply| Call::Delete(whose, reply)).await?;
        let exit_status = record.exit_code.into();
        Ok(DeleteResponse { pid: record.pid, exit_status, exited_at: Some(exited_at(&record)) })
    }

    async fn pids(&self, request: PidsRequest) -> Result<PidsResponse, Status> {
        self.check(&request.id)?;
        let pids = self.ask(Call::Pids).await?;
        let execs = self.ask(Call::ListExecs).await?;
        let info =
            |pid| execs.iter().find(|e| e.pid == pid && e.exited_at == 0).map(|e| exec::details(&e.exec_id));
        Ok(PidsResponse {
            processes: pids.into_iter().map(|pid| ProcessInfo { pid, info: info(pid) }).collect(),
        })
    }

    async fn stats(&self, request: StatsRequest) -> Result<StatsResponse, Status> {
        self.check(&request.id)?;
        let stats = self.ask(Call::Stats).await?;
        Ok(StatsResponse { stats: Some(metrics::encode(&stats)) })
    }

    async fn update(&self, request: UpdateTaskRequest) -> Result<(), Status> {
        self.check(&request.id)?;
        let change = create::update(request.resources)?;
        self.ask(|reply| Call::Update(change, reply)).await
    }

    async fn pause(&self, request: PauseRequest) -> Result<(), Status> {
        self.check(&request.id)?;
        self.ask(Call::Pause).await
    }

    async fn resume(&self, request: ResumeRequest) -> Result<(), Status> {
        self.check(&request.id)?;
        self.ask(Call::Resume).await
    }

    async fn kill(&self, request: KillRequest) -> Result<(), Status> {
        let whose = self.whose(&request.id, &request.exec_id)?;
        let number =
            i32::try_from(request.signal).ok().filter(|number| (0..=64).contains(number)).ok_or_else(
                || Status::new(Code::InvalidArgument, format!("invalid signal {}", request.signal)),
            )?;
        self.ask(|reply| Call::Kill(whose, Signal { number, all: request.all }, reply)).await
    }

    async fn resize(&self, request: ResizePtyRequest) -> Result<(), Status> {
        let whose = self.whose(&request.id, &request.exec_id)?;
        let size = create::size(request.height, request.width)?;
        self.ask(|reply| Call::Resize(whose, size, reply)).await
    }

    async fn close_io(&self, request: CloseIoRequest) -> Result<(), Status> {
        let whose = self.whose(&request.id, &request.exec_id)?;
        if !request.stdin {
            return Ok(());
        }
        self.ask(|reply| Call::CloseStdin(whose, reply)).await
    }

    async fn wait(&self, request: WaitRequest) -> Result<WaitResponse, Status> {
        let whose = self.whose(&request.id, &request.exec_id)?;
        let record = self.ask(|reply| Call::Wait(whose, reply)).await?;
        Ok(WaitResponse { exit_status: record.exit_code.into(), exited_at: Some(exited_at(&record)) })
    }

    async fn connect(&self, request: ConnectRequest) -> Result<ConnectResponse, Status> {
        self.check(&request.id)?;
        let view = self.ask(|reply| Call::State(Whose::Init, reply)).await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid: view.pid, version })
    }

    async fn shutdown(&self, request: ShutdownRequest) -> Result<(), Status> {
        self.check(&request.id)?;
        self.ask(|reply| Call::Shutdown { now: request.now, reply }).await
    }

    async fn exec(&self, request: ExecProcessRequest) -> Result<(), Status> {
        self.check(&request.id)?;
        let add = Box::new(exec::read(request)?);
        self.ask(|reply| Call::Exec(add, reply)).await
    }

    async fn list_execs(&self) -> Result<ListExecsResponse, Status> {
        Ok(ListExecsResponse { processes: self.ask(Call::ListExecs).await? })
    }

    /// A shim holds one container.
    fn check(&self, id: &str) -> Result<(), Status> {
        if id == self.id.as_str() {
            return Ok(());
        }
        Err(Status::new(Code::NotFound, format!("container {} is not here", id.escape_debug())))
    }

    fn whose(&self, id: &str, exec_id: &str) -> Result<Whose, Status> {
        self.check(id)?;
        if exec_id.is_empty() {
            return Ok(Whose::Init);
        }
        exec::id(exec_id).map(Whose::Exec)
    }

    async fn ask<T>(&self, call: impl FnOnce(Reply<T>) -> Call) -> Result<T, Status> {
        let gone = || Status::new(Code::Unavailable, "the shim is ending");
        let (reply, answer) = oneshot::channel();
        self.supervisor.send(call(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn encode(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn task_status(phase: &Phase) -> TaskStatus {
    match phase {
        Phase::Empty | Phase::Deleted => TaskStatus::Unknown,
        Phase::Created => TaskStatus::Created,
        // Until the record of its end is written nobody hears of it.
        Phase::Running | Phase::Ending(_) => TaskStatus::Running,
        Phase::Paused => TaskStatus::Paused,
        Phase::Stopped(_) => TaskStatus::Stopped,
    }
}

fn exited_at(record: &ExitRecord) -> Timestamp {
    record.exited_at().into()
}
