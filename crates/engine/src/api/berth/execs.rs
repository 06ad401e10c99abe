// SPDX-License-Identifier: Apache-2.0
//! berth.v1.Execs: decode, one call of lifecycle, encode.

use std::sync::Arc;

use berth::api::v1::{self, execs_server, run_exec_request, run_exec_response};
use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::containers::{Answers, answers, config::size, encode, tenant};
use crate::{
    api::contained::contained,
    domain::{exec::ExecConfig, record::Record},
    error::{Error, Kind, Result},
    lifecycle::{
        attach::AttachInput,
        containers::Containers,
        execs::{ExecInput, ExecOutput, ExecRequest, ListedExec},
    },
};

/// The service.
#[derive(Debug, Clone)]
pub struct ExecsService {
    containers: Arc<Containers>,
}

impl ExecsService {
    /// Serves the processes in `containers`.
    #[must_use]
    pub fn new(containers: Arc<Containers>) -> Self {
        Self { containers }
    }

    async fn find(&self, namespace: &str, reference: &str) -> Result<Option<Record>> {
        if reference.is_empty() {
            return Ok(None);
        }
        self.containers.find(&tenant(namespace)?, reference).await.map(Some)
    }
}

#[tonic::async_trait]
impl execs_server::Execs for ExecsService {
    type RunStream = Answers<v1::RunExecResponse>;

    async fn run(
        &self,
        request: Request<Streaming<v1::RunExecRequest>>,
    ) -> Result<Response<Self::RunStream>, Status> {
        contained(async {
            let mut messages = request.into_inner();
            let start = first(&mut messages).await?;
            let record = self.containers.find(&tenant(&start.namespace)?, &start.container).await?;
            let output = self.containers.exec(&record, decode(start), Box::pin(inputs(messages))).await?;
            Ok(answers(output, encode_output))
        })
        .await
    }

    async fn list(
        &self,
        request: Request<v1::ListExecsRequest>,
    ) -> Result<Response<v1::ListExecsResponse>, Status> {
        contained(async {
            let v1::ListExecsRequest { namespace, container, all } = request.into_inner();
            let container = self.find(&namespace, &container).await?;
            let listed = self.containers.list_execs(&tenant(&namespace)?, container.as_ref(), all).await?;
            Ok(v1::ListExecsResponse { execs: listed.into_iter().map(encode_exec).collect() })
        })
        .await
    }

    async fn kill(
        &self,
        request: Request<v1::KillExecRequest>,
    ) -> Result<Response<v1::KillExecResponse>, Status> {
        contained(async {
            let v1::KillExecRequest { namespace, container, exec_id, signal } = request.into_inner();
            let container = self.find(&namespace, &container).await?;
            let tenant = tenant(&namespace)?;
            self.containers.kill_exec(&tenant, container.as_ref(), &exec_id, &signal).await?;
            Ok(v1::KillExecResponse {})
        })
        .await
    }
}

/// The message that opens a stream of Run.
async fn first(messages: &mut Streaming<v1::RunExecRequest>) -> Result<run_exec_request::Start> {
    let message = messages.message().await;
    let message =
        message.map_err(|e| Error::new(Kind::Cancelled, "read the first message").with_source(e))?;
    match message.and_then(|message| message.kind) {
        Some(run_exec_request::Kind::Start(start)) => Ok(start),
        _ => Err(Error::new(Kind::InvalidArgument, "the first message of Run must be `start`")),
    }
}

fn decode(start: run_exec_request::Start) -> ExecRequest {
    ExecRequest {
        config: ExecConfig {
            command: start.command,
            env: start.env,
            working_dir: start.working_dir,
            user: start.user,
            tty: start.tty,
            size: start.size.as_ref().map(size),
            privileged: start.privileged,
        },
        stdin: start.stdin,
        detach: start.detach,
        kill_on_disconnect: start.kill_on_disconnect,
    }
}

/// A client's further messages; the stream ends with the client.
fn inputs(messages: Streaming<v1::RunExecRequest>) -> impl Stream<Item = ExecInput> + Send {
    messages.take_while(|message| std::future::ready(message.is_ok())).filter_map(|message| {
        let kind = message.ok().and_then(|message| message.kind);
        std::future::ready(kind.and_then(input))
    })
}

fn input(kind: run_exec_request::Kind) -> Option<ExecInput> {
    use run_exec_request::Kind as Wire;
    Some(match kind {
        Wire::Start(_) => return None,
        Wire::Stdin(bytes) => ExecInput::Stdio(AttachInput::Stdin(bytes)),
        Wire::StdinClosed(_) => ExecInput::Stdio(AttachInput::Close),
        Wire::Resize(to) => {
            let (rows, columns) = size(&to);
            ExecInput::Stdio(AttachInput::Resize { rows, columns })
        }
        Wire::Signal(name) => ExecInput::Signal(name),
    })
}

fn encode_output(output: ExecOutput) -> v1::RunExecResponse {
    use run_exec_response::{Exited, Kind as Wire, Started};
    let kind = match output {
        ExecOutput::Started { id, pid } => Wire::Started(Started { exec_id: id.to_string(), pid }),
        ExecOutput::Output(stream, data) => Wire::Output(encode::output(stream, data)),
        ExecOutput::Exited(code) => Wire::Exited(Exited { exit_code: code.into() }),
    };
    v1::RunExecResponse { kind: Some(kind) }
}

fn encode_exec(exec: ListedExec) -> v1::Exec {
    let ListedExec { container, process } = exec;
    v1::Exec {
        id: process.exec_id,
        container_id: container.id.to_string(),
        container_name: container.name,
        pid: process.pid,
        command: process.args,
        user: process.user,
        tty: process.terminal,
        started_at: encode::time(process.started_at),
        exited_at: encode::time(process.exited_at),
        exit_code: process.exit_code,
    }
}
