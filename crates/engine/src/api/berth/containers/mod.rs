// SPDX-License-Identifier: Apache-2.0
//! berth.v1.Containers: decode, one call of lifecycle, encode.

pub(super) mod config;
pub(super) mod encode;
mod files;
mod usage;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use berth::{
    api::v1::{self, attach_request, containers_server},
    ids::Namespace,
};
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    api::{contained::contained, status::to_status},
    domain::{filter::ContainerFilter, record::Record},
    error::{Error, Kind, Result},
    lifecycle::{
        attach::{AttachInput, AttachOptions},
        containers::{
            CommitOptions, Condition, Containers, ListOptions, PruneOptions, StartOutcome, StatsOptions,
            Stopped,
        },
        logs::{LogOptions, Place},
    },
};

/// The service.
#[derive(Debug, Clone)]
pub struct ContainersService {
    containers: Arc<Containers>,
}

impl ContainersService {
    /// Serves `containers`.
    #[must_use]
    pub fn new(containers: Arc<Containers>) -> Self {
        Self { containers }
    }

    async fn find(&self, namespace: &str, reference: &str) -> Result<Record> {
        self.containers.find(&tenant(namespace)?, reference).await
    }
}

pub(super) fn tenant(namespace: &str) -> Result<Namespace> {
    Namespace::of_request(namespace).map_err(|e| Error::new(Kind::InvalidArgument, e.to_string()))
}

#[tonic::async_trait]
impl containers_server::Containers for ContainersService {
    async fn create(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Result<Response<v1::CreateContainerResponse>, Status> {
        contained(async {
            let v1::CreateContainerRequest { namespace, name, config } = request.into_inner();
            let config = config::decode(config.unwrap_or_default())?;
            let made = self.containers.create(tenant(&namespace)?, name, config).await?;
            Ok(v1::CreateContainerResponse {
                id: made.id.to_string(),
                name: made.name,
                warnings: made.warnings,
            })
        })
        .await
    }

    async fn start(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Result<Response<v1::StartContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let (already_running, pid) = match self.containers.start(record).await? {
                StartOutcome::Started(pid) => (false, pid),
                StartOutcome::AlreadyRunning(pid) => (true, pid),
            };
            Ok(v1::StartContainerResponse { already_running, pid })
        })
        .await
    }

    async fn wait(
        &self,
        request: Request<v1::WaitContainerRequest>,
    ) -> Result<Response<v1::WaitContainerResponse>, Status> {
        use v1::wait_container_request::Condition as Wire;
        contained(async {
            let request = request.into_inner();
            let condition = match request.condition() {
                Wire::NotRunning => Condition::NotRunning,
                Wire::NextExit => Condition::NextExit,
                Wire::Removed => Condition::Removed,
            };
            let record = self.find(&request.namespace, &request.container).await?;
            let exit = self.containers.wait(&record, condition).await?;
            Ok(v1::WaitContainerResponse {
                exit_code: exit.code.into(),
                exited_at: encode::time(exit.at),
                error: exit.error,
            })
        })
        .await
    }

    async fn kill(
        &self,
        request: Request<v1::KillContainerRequest>,
    ) -> Result<Response<v1::KillContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            self.containers.kill(&record, &request.signal).await?;
            Ok(v1::KillContainerResponse {})
        })
        .await
    }

    async fn stop(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Result<Response<v1::StopContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let stopped = self.containers.stop(&record, &request.signal, request.timeout).await?;
            Ok(v1::StopContainerResponse { already_stopped: stopped == Stopped::Already })
        })
        .await
    }

    async fn probe_health(
        &self,
        request: Request<v1::ProbeHealthRequest>,
    ) -> Result<Response<v1::ProbeHealthResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let state = self.containers.probe_now(&record).await?;
            Ok(v1::ProbeHealthResponse { health: Some(encode::health_state(state)) })
        })
        .await
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Result<Response<v1::RemoveContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let id = record.id.to_string();
            self.containers.remove(record, request.force.into()).await?;
            Ok(v1::RemoveContainerResponse { id })
        })
        .await
    }

    async fn list(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Result<Response<v1::ListContainersResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let filters = request.filters.iter().map(|f| (f.key.as_str(), f.value.as_str()));
            let options = ListOptions {
                namespace: tenant(&request.namespace)?,
                all: request.all,
                limit: usize::try_from(request.limit).unwrap_or(usize::MAX),
                filter: ContainerFilter::parse(filters)?,
                sizes: request.size,
            };
            let listed = self.containers.list(options).await?;
            Ok(v1::ListContainersResponse { containers: listed.into_iter().map(encode::summary).collect() })
        })
        .await
    }

    async fn inspect(
        &self,
        request: Request<v1::InspectContainerRequest>,
    ) -> Result<Response<v1::InspectContainerResponse>, Status> {
        contained(async {
            let v1::InspectContainerRequest { namespace, container } = request.into_inner();
            let details = self.containers.inspect(tenant(&namespace)?, container).await?;
            Ok(v1::InspectContainerResponse { container: Some(encode::details(details)) })
        })
        .await
    }

    type LogsStream = Answers<v1::LogsResponse>;

    async fn logs(&self, request: Request<v1::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            // Neither is as good as both.
            let both = !request.stdout && !request.stderr;
            let options = LogOptions {
                follow: request.follow,
                stdout: request.stdout || both,
                stderr: request.stderr || both,
                since: config::nanos(request.since),
                until: config::nanos(request.until),
                tail: request.tail,
                after: request.after.map(|place| Place { segment: place.segment, offset: place.offset }),
                details: request.details,
                before: None,
            };
            Ok(answers(self.containers.logs(&record, options).await?, encode::line))
        })
        .await
    }

    type AttachStream = Answers<v1::AttachResponse>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        contained(async {
            let mut messages = request.into_inner();
            let open = first(&mut messages).await?;
            let record = self.find(&open.namespace, &open.container).await?;
            let options = AttachOptions {
                stdin: open.stdin,
                stdout: open.stdout,
                stderr: open.stderr,
                logs: open.logs,
                wait: open.wait,
                next_start: open.next_start,
            };
            let output = self.containers.attach(&record, options, Box::pin(inputs(messages))).await?;
            Ok(answers(output, encode::attached))
        })
        .await
    }

    async fn resize_tty(
        &self,
        request: Request<v1::ResizeTtyRequest>,
    ) -> Result<Response<v1::ResizeTtyResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let size = request.size.unwrap_or_default();
            self.containers.resize(&record, size.rows, size.columns).await?;
            Ok(v1::ResizeTtyResponse {})
        })
        .await
    }

    async fn pause(
        &self,
        request: Request<v1::PauseContainerRequest>,
    ) -> Result<Response<v1::PauseContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            self.containers.pause(record).await?;
            Ok(v1::PauseContainerResponse {})
        })
        .await
    }

    async fn unpause(
        &self,
        request: Request<v1::UnpauseContainerRequest>,
    ) -> Result<Response<v1::UnpauseContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            self.containers.unpause(record).await?;
            Ok(v1::UnpauseContainerResponse {})
        })
        .await
    }

    async fn rename(
        &self,
        request: Request<v1::RenameContainerRequest>,
    ) -> Result<Response<v1::RenameContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            self.containers.rename(record, request.new_name).await?;
            Ok(v1::RenameContainerResponse {})
        })
        .await
    }

    async fn restart(
        &self,
        request: Request<v1::RestartContainerRequest>,
    ) -> Result<Response<v1::RestartContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let pid = self.containers.restart(record, request.signal, request.timeout).await?;
            Ok(v1::RestartContainerResponse { pid })
        })
        .await
    }

    type StatsStream = Answers<v1::ContainerStatsResponse>;

    async fn stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Result<Response<Self::StatsStream>, Status> {
        contained(async {
            let request = request.into_inner();
            let options = StatsOptions {
                namespace: tenant(&request.namespace)?,
                containers: request.containers,
                all: request.all,
                stream: request.stream,
                one_shot: request.one_shot,
            };
            Ok(answers(self.containers.stats(options).await?, usage::round))
        })
        .await
    }

    async fn top(
        &self,
        request: Request<v1::TopContainerRequest>,
    ) -> Result<Response<v1::TopContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let table = self.containers.top(&record, &request.ps_args).await?;
            let process = |values| v1::top_container_response::Process { values };
            Ok(v1::TopContainerResponse {
                titles: table.titles,
                processes: table.rows.into_iter().map(process).collect(),
            })
        })
        .await
    }

    async fn update(
        &self,
        request: Request<v1::UpdateContainerRequest>,
    ) -> Result<Response<v1::UpdateContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            self.containers.update(record, config::changes(request)?).await?;
            Ok(v1::UpdateContainerResponse {})
        })
        .await
    }

    async fn prune(
        &self,
        request: Request<v1::PruneContainersRequest>,
    ) -> Result<Response<v1::PruneContainersResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let options = PruneOptions {
                namespace: tenant(&request.namespace)?,
                until: config::nanos(request.until),
                labels: request.labels,
                without_labels: request.without_labels,
            };
            let pruned = self.containers.prune(options).await?;
            Ok(v1::PruneContainersResponse {
                removed: pruned.removed.iter().map(ToString::to_string).collect(),
                space_reclaimed: pruned.reclaimed,
            })
        })
        .await
    }

    type DiffStream = Answers<v1::DiffContainerResponse>;

    async fn diff(
        &self,
        request: Request<v1::DiffContainerRequest>,
    ) -> Result<Response<Self::DiffStream>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            Ok(answers(self.containers.diff(&record), usage::changes))
        })
        .await
    }

    async fn stat_path(
        &self,
        request: Request<v1::StatPathRequest>,
    ) -> Result<Response<v1::StatPathResponse>, Status> {
        contained(async {
            let v1::StatPathRequest { namespace, container, path, follow } = request.into_inner();
            let record = self.find(&namespace, &container).await?;
            let found = self.containers.stat_path(&record, path.to_vec(), follow).await?;
            Ok(v1::StatPathResponse { stat: Some(files::stat(found)) })
        })
        .await
    }

    async fn commit(
        &self,
        request: Request<v1::CommitContainerRequest>,
    ) -> Result<Response<v1::CommitContainerResponse>, Status> {
        contained(async {
            let request = request.into_inner();
            let record = self.find(&request.namespace, &request.container).await?;
            let v1::CommitContainerRequest { reference, author, message, changes, pause, .. } = request;
            let options = CommitOptions { reference, author, message, changes, pause };
            let id = Box::pin(self.containers.commit(record, options)).await?;
            Ok(v1::CommitContainerResponse { image_id: id.to_string() })
        })
        .await
    }

    type CopyFromStream = Answers<v1::CopyFromResponse>;

    async fn copy_from(
        &self,
        request: Request<v1::CopyFromRequest>,
    ) -> Result<Response<Self::CopyFromStream>, Status> {
        contained(async {
            let v1::CopyFromRequest { namespace, container, path, follow } = request.into_inner();
            let record = self.find(&namespace, &container).await?;
            let (found, data) = self.containers.copy_from(&record, path.to_vec(), follow).await?;
            Ok(files::copied(found, data))
        })
        .await
    }

    async fn copy_to(
        &self,
        request: Request<Streaming<v1::CopyToRequest>>,
    ) -> Result<Response<v1::CopyToResponse>, Status> {
        contained(async {
            let mut messages = request.into_inner();
            let open = files::open(&mut messages).await?;
            let record = self.find(&open.namespace, &open.container).await?;
            self.containers.copy_into(&record, files::into(&open), files::archive(messages)).await?;
            Ok(v1::CopyToResponse {})
        })
        .await
    }

    type ExportStream = Answers<v1::ExportContainerResponse>;

    async fn export(
        &self,
        request: Request<v1::ExportContainerRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        contained(async {
            let v1::ExportContainerRequest { namespace, container } = request.into_inner();
            let record = self.find(&namespace, &container).await?;
            let data = self.containers.export(&record).await?;
            Ok(answers(data, |data| v1::ExportContainerResponse { data }))
        })
        .await
    }
}

/// The message that opens an attach stream.
async fn first(messages: &mut Streaming<v1::AttachRequest>) -> Result<attach_request::Open> {
    let message = messages.message().await;
    let message =
        message.map_err(|e| Error::new(Kind::Cancelled, "read the first message").with_source(e))?;
    match message.and_then(|message| message.kind) {
        Some(attach_request::Kind::Open(open)) => Ok(open),
        _ => Err(Error::new(Kind::InvalidArgument, "the first message of Attach must be `open`")),
    }
}

/// A client's further messages; the stream ends with the client.
fn inputs(messages: Streaming<v1::AttachRequest>) -> impl Stream<Item = AttachInput> + Send {
    messages.take_while(|message| std::future::ready(message.is_ok())).filter_map(|message| {
        let kind = message.ok().and_then(|message| message.kind);
        std::future::ready(kind.and_then(config::input))
    })
}

/// A stream of answers; dropping it ends the work behind it.
pub struct Answers<T> {
    next: Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>,
}

impl<T> std::fmt::Debug for Answers<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.next.as_mut().poll_next(context)
    }
}

pub(super) fn answers<A: Send + 'static, T: 'static>(
    receiver: mpsc::Receiver<Result<A>>,
    encode: fn(A) -> T,
) -> Answers<T> {
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    Answers { next: Box::pin(stream.map(move |item| item.map(encode).map_err(|e| to_status(&e)))) }
}
