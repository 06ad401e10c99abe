// SPDX-License-Identifier: Apache-2.0
//! The Task service: decode, one call of the supervisor, encode.

use std::path::PathBuf;

use berth::{
    api::{
        task::{
            CloseIoRequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
            DeleteRequest, DeleteResponse, KillRequest, PauseRequest, PidsRequest, PidsResponse,
            ResizePtyRequest, ResumeRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest,
            StateResponse, StatsRequest, StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
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

use super::{create, metrics};
use crate::supervisor::{
    Phase,
    call::{Call, Reply, Signal, View},
};

/// Both versions of the protocol: the messages are the same.
const SERVICES: [&str; 2] = ["containerd.task.v3.Task", "containerd.task.v2.Task"];

/// The service of one container.
#[derive(Debug, Clone)]
pub(super) struct TaskService {
    id: ContainerId,
    bundle: PathBuf,
    supervisor: mpsc::Sender<Call>,
}

impl server::Service for TaskService {
    async fn call(&self, service: &str, method: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
        if !SERVICES.contains(&service) {
            return Err(Status::new(Code::Unimplemented, format!("unknown service {service}")));
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
            "Exec" | "Checkpoint" => Err(Status::new(
                Code::Unimplemented,
                format!("{method} is not supported by this version of berth-shim"),
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
        self.check(&request.id, &request.exec_id)?;
        let View { phase, pid, streams } = self.ask(Call::State).await?;
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
            exec_id: String::new(),
        })
    }

    async fn create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse, Status> {
        self.check(&request.id, "")?;
        let create = Box::new(create::read(request)?);
        let pid = self.ask(|reply| Call::Create(create, reply)).await?;
        Ok(CreateTaskResponse { pid })
    }

    async fn start(&self, request: StartRequest) -> Result<StartResponse, Status> {
        self.check(&request.id, &request.exec_id)?;
        Ok(StartResponse { pid: self.ask(Call::Start).await? })
    }

    async fn delete(&self, request: DeleteRequest) -> Result<DeleteResponse, Status> {
        self.check(&request.id, &request.exec_id)?;
        let record = self.ask(Call::Delete).await?;
        let exit_status = record.exit_code.into();
        Ok(DeleteResponse { pid: record.pid, exit_status, exited_at: Some(exited_at(&record)) })
    }

    async fn pids(&self, request: PidsRequest) -> Result<PidsResponse, Status> {
        self.check(&request.id, "")?;
        let pids = self.ask(Call::Pids).await?;
        Ok(PidsResponse { processes: pids.into_iter().map(|pid| ProcessInfo { pid, info: None }).collect() })
    }

    async fn stats(&self, request: StatsRequest) -> Result<StatsResponse, Status> {
        self.check(&request.id, "")?;
        let stats = self.ask(Call::Stats).await?;
        Ok(StatsResponse { stats: Some(metrics::encode(&stats)) })
    }

    async fn update(&self, request: UpdateTaskRequest) -> Result<(), Status> {
        self.check(&request.id, "")?;
        let resources = Box::new(create::resources(request.resources)?);
        self.ask(|reply| Call::Update(resources, reply)).await
    }

    async fn pause(&self, request: PauseRequest) -> Result<(), Status> {
        self.check(&request.id, "")?;
        self.ask(Call::Pause).await
    }

    async fn resume(&self, request: ResumeRequest) -> Result<(), Status> {
        self.check(&request.id, "")?;
        self.ask(Call::Resume).await
    }

    async fn kill(&self, request: KillRequest) -> Result<(), Status> {
        self.check(&request.id, &request.exec_id)?;
        let number =
            i32::try_from(request.signal).ok().filter(|number| (0..=64).contains(number)).ok_or_else(
                || Status::new(Code::InvalidArgument, format!("invalid signal {}", request.signal)),
            )?;
        self.ask(|reply| Call::Kill(Signal { number, all: request.all }, reply)).await
    }

    async fn resize(&self, request: ResizePtyRequest) -> Result<(), Status> {
        self.check(&request.id, &request.exec_id)?;
        let size = create::size(request.height, request.width)?;
        self.ask(|reply| Call::Resize(size, reply)).await
    }

    async fn close_io(&self, request: CloseIoRequest) -> Result<(), Status> {
        self.check(&request.id, &request.exec_id)?;
        if !request.stdin {
            return Ok(());
        }
        self.ask(Call::CloseStdin).await
    }

    async fn wait(&self, request: WaitRequest) -> Result<WaitResponse, Status> {
        self.check(&request.id, &request.exec_id)?;
        let record = self.ask(Call::Wait).await?;
        Ok(WaitResponse { exit_status: record.exit_code.into(), exited_at: Some(exited_at(&record)) })
    }

    async fn connect(&self, request: ConnectRequest) -> Result<ConnectResponse, Status> {
        self.check(&request.id, "")?;
        let view = self.ask(Call::State).await?;
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid: view.pid, version })
    }

    async fn shutdown(&self, request: ShutdownRequest) -> Result<(), Status> {
        self.check(&request.id, "")?;
        self.ask(|reply| Call::Shutdown { now: request.now, reply }).await
    }

    /// A shim holds one container, and no further processes in it.
    fn check(&self, id: &str, exec_id: &str) -> Result<(), Status> {
        if id != self.id.as_str() {
            return Err(Status::new(Code::NotFound, format!("container {} is not here", id.escape_debug())));
        }
        if !exec_id.is_empty() {
            return Err(Status::new(
                Code::NotFound,
                format!("process {} is not here", exec_id.escape_debug()),
            ));
        }
        Ok(())
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
