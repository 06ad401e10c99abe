// SPDX-License-Identifier: Apache-2.0
//! The engine's API, without a program per call.

use std::error::Error as _;

use berth::api::v1::{self, run_exec_request, run_exec_response};
use tokio_stream::StreamExt as _;
use tonic::Status;

use crate::support::Engine;

/// A connection to an engine.
#[derive(Debug, Clone)]
pub(crate) struct Api(berth::Client);

pub(crate) type Answer<T> = Result<T, Status>;

impl Api {
    pub(crate) async fn connect(address: &str) -> Option<Self> {
        berth::Client::connect(address).await.ok().map(Self)
    }

    /// To an engine that runs.
    pub(crate) async fn of(engine: &Engine) -> Self {
        Self::connect(&engine.address()).await.expect("the engine answers")
    }

    /// Makes a container of busybox; its id.
    pub(crate) async fn create(&self, name: &str, command: &[&str], host: v1::HostConfig) -> Answer<String> {
        let config = v1::ContainerConfig {
            image: "busybox".to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            stop_timeout: Some(1),
            host: Some(host),
            ..Default::default()
        };
        let request =
            v1::CreateContainerRequest { name: name.to_owned(), config: Some(config), ..Default::default() };
        self.0.containers().create(request).await.map(|answer| answer.into_inner().id)
    }

    pub(crate) async fn start(&self, container: &str) -> Answer<()> {
        let request = v1::StartContainerRequest { container: container.to_owned(), ..Default::default() };
        self.0.containers().start(request).await.map(drop)
    }

    pub(crate) async fn stop(&self, container: &str) -> Answer<()> {
        let request = v1::StopContainerRequest { container: container.to_owned(), ..Default::default() };
        self.0.containers().stop(request).await.map(drop)
    }

    pub(crate) async fn kill(&self, container: &str) -> Answer<()> {
        let request = v1::KillContainerRequest { container: container.to_owned(), ..Default::default() };
        self.0.containers().kill(request).await.map(drop)
    }

    /// Waits for its end; the exit code.
    pub(crate) async fn wait(&self, container: &str) -> Answer<u32> {
        let request = v1::WaitContainerRequest { container: container.to_owned(), ..Default::default() };
        self.0.containers().wait(request).await.map(|answer| answer.into_inner().exit_code)
    }

    /// Kills it first, if it runs.
    pub(crate) async fn remove(&self, container: &str) -> Answer<()> {
        let request =
            v1::RemoveContainerRequest { container: container.to_owned(), force: true, ..Default::default() };
        self.0.containers().remove(request).await.map(drop)
    }

    pub(crate) async fn pause(&self, container: &str) -> Answer<()> {
        let request = v1::PauseContainerRequest { container: container.to_owned(), ..Default::default() };
        self.0.containers().pause(request).await.map(drop)
    }

    pub(crate) async fn unpause(&self, container: &str) -> Answer<()> {
        let request = v1::UnpauseContainerRequest { container: container.to_owned(), ..Default::default() };
        self.0.containers().unpause(request).await.map(drop)
    }

    pub(crate) async fn rename(&self, container: &str, name: &str) -> Answer<()> {
        let request = v1::RenameContainerRequest {
            container: container.to_owned(),
            new_name: name.to_owned(),
            ..Default::default()
        };
        self.0.containers().rename(request).await.map(drop)
    }

    pub(crate) async fn set_pids_limit(&self, container: &str, limit: i64) -> Answer<()> {
        let request = v1::UpdateContainerRequest {
            container: container.to_owned(),
            pids_limit: Some(limit),
            ..Default::default()
        };
        self.0.containers().update(request).await.map(drop)
    }

    /// Everything that it has printed.
    pub(crate) async fn logs(&self, container: &str) -> Answer<Vec<u8>> {
        let request = v1::LogsRequest {
            container: container.to_owned(),
            stdout: true,
            stderr: true,
            ..Default::default()
        };
        let mut stream = self.0.containers().logs(request).await?.into_inner();
        let mut all = Vec::new();
        while let Some(message) = stream.try_next().await? {
            all.extend(message.data);
        }
        Ok(all)
    }

    pub(crate) async fn inspect(&self, container: &str) -> Answer<v1::Container> {
        let request = v1::InspectContainerRequest { container: container.to_owned(), ..Default::default() };
        let answer = self.0.containers().inspect(request).await?.into_inner();
        Ok(answer.container.expect("a container"))
    }

    pub(crate) async fn list(&self) -> Answer<Vec<v1::ContainerSummary>> {
        let request = v1::ListContainersRequest { all: true, ..Default::default() };
        self.0.containers().list(request).await.map(|answer| answer.into_inner().containers)
    }

    /// Runs a command in a container; its exit code and all of its output.
    pub(crate) async fn exec(&self, container: &str, command: &[&str]) -> Answer<(u32, Vec<u8>)> {
        let start = run_exec_request::Start {
            container: container.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            ..Default::default()
        };
        let first = v1::RunExecRequest { kind: Some(run_exec_request::Kind::Start(start)) };
        let requests = tokio_stream::once(first).chain(tokio_stream::pending());
        let mut answers = self.0.execs().run(requests).await?.into_inner();
        let mut output = Vec::new();
        while let Some(answer) = answers.try_next().await? {
            match answer.kind {
                Some(run_exec_response::Kind::Output(chunk)) => output.extend(chunk.data),
                Some(run_exec_response::Kind::Exited(exited)) => return Ok((exited.exit_code, output)),
                _ => {}
            }
        }
        Err(Status::data_loss("the stream of an exec has ended without its exit code"))
    }
}

/// Whether a call failed because of the engine's end, or has to be repeated:
/// what became of it isn't known.
pub(crate) fn is_interrupted(status: &Status) -> bool {
    status.source().is_some() || status.code() == tonic::Code::Unavailable
}
