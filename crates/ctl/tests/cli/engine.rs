// SPDX-License-Identifier: Apache-2.0
//! An engine that follows a script, on a socket of its own.

use std::{
    collections::HashMap,
    path::PathBuf,
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard},
};

use berth::api::v1::*;
use containers_server::{Containers, ContainersServer};
use events_server::{Events, EventsServer};
use images_server::{Images, ImagesServer};
use system_server::{System, SystemServer};
use tokio::{
    net::UnixListener,
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_stream::{
    Stream,
    wrappers::{ReceiverStream, UnixListenerStream},
};
use tonic::{Request, Response, Status, Streaming};

pub(crate) const ID: &str = "128ec8ceab71aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(crate) const NAME: &str = "exciting_chebyshev";

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the engine does when it is asked.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// Images that are here.
    pub(crate) images: Vec<Image>,
    /// What a pull sends; afterwards the image is here.
    pub(crate) pull: Vec<PullImageResponse>,
    pub(crate) pull_error: Option<Status>,
    pub(crate) start_error: Option<Status>,
    /// What the container writes when it starts.
    pub(crate) output: Vec<(Of, &'static str)>,
    /// Exit at once with this; without it, on a signal or at the end of stdin.
    pub(crate) exit: Option<u32>,
    /// The container is gone when it is waited for, as with `--rm`.
    pub(crate) gone: bool,
    pub(crate) log: Vec<LogsResponse>,
    pub(crate) containers: Vec<ContainerSummary>,
    pub(crate) inspect: HashMap<String, Container>,
    pub(crate) events: Vec<Event>,
    /// Rounds of `stats`.
    pub(crate) stats: Vec<Vec<ContainerStats>>,
}

pub(crate) use berth::api::v1::Stream as Of;

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) calls: Vec<String>,
    pub(crate) created: Option<CreateContainerRequest>,
    pub(crate) stdin: Vec<u8>,
    pub(crate) sizes: Vec<(u32, u32)>,
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    seen: Mutex<Seen>,
    /// Grows with everything seen.
    changed: watch::Sender<u64>,
    started: watch::Sender<bool>,
    exited: watch::Sender<Option<u32>>,
}

#[derive(Debug, Clone)]
struct Fake(Arc<Shared>);

/// A running engine; dropping it cuts all connections.
#[derive(Debug)]
pub(crate) struct Engine {
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
    directory: tempfile::TempDir,
}

impl Engine {
    pub(crate) fn new(script: Script) -> Self {
        Self::in_directory(script, tempfile::tempdir().expect("temporary directory"))
    }

    fn in_directory(script: Script, directory: tempfile::TempDir) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            seen: Mutex::default(),
            changed: watch::Sender::new(0),
            started: watch::Sender::new(false),
            exited: watch::Sender::new(None),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let fake = Fake(Arc::clone(&shared));
        let path = directory.path().join("berth.sock");
        let listener = runtime.block_on(async { UnixListener::bind(path) }).expect("socket");
        let server = tonic::transport::Server::builder()
            .add_service(ContainersServer::new(fake.clone()))
            .add_service(ImagesServer::new(fake.clone()))
            .add_service(EventsServer::new(fake.clone()))
            .add_service(SystemServer::new(fake))
            .serve_with_incoming(UnixListenerStream::new(listener));
        runtime.spawn(server);
        Self { runtime: Some(runtime), shared, directory }
    }

    /// Kills this engine, and starts another at the same address, whose
    /// container has started.
    pub(crate) fn replaced_by(mut self, script: Script) -> Self {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(std::time::Duration::from_secs(10));
        }
        std::fs::remove_file(self.path()).expect("remove socket");
        let exit = script.exit;
        let next = Self::in_directory(script, self.directory);
        next.shared.started.send_replace(true);
        next.shared.exited.send_replace(exit);
        next
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("berth.sock")
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.shared.seen.lock().expect("lock")
    }

    /// Waits until what was seen satisfies `condition`.
    pub(crate) fn until(&self, what: &str, condition: impl Fn(&Seen) -> bool) {
        let runtime = self.runtime.as_ref().expect("running");
        let mut changes = self.shared.changed.subscribe();
        let reached = runtime.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(30), async {
                while !condition(&self.shared.seen.lock().expect("lock")) {
                    changes.changed().await.expect("engine");
                }
            })
            .await
        });
        assert!(reached.is_ok(), "never came: {what}: {:?}", self.seen());
    }

    /// `berth` with these arguments, about to talk to this engine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
        command
            .args(arguments)
            .env_remove("BERTH_NAMESPACE")
            .env("DOCKER_CONFIG", "/nonexistent")
            .env("BERTH_ADDRESS", format!("unix://{}", self.path().display()))
            .env("TZ", "UTC")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn berth(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).output().expect("run berth"))
    }

    /// The same, with text on stdin and directories in the environment.
    pub(crate) fn berth_with(
        &self,
        arguments: &[&str],
        input: &str,
        env: &[(&str, &std::path::Path)],
    ) -> Ended {
        use std::{io::Write as _, process::Stdio};
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.envs(env.iter().copied()).spawn().expect("run berth");
        // One that doesn't read it is not at fault.
        let _ = child.stdin.take().expect("stdin").write_all(input.as_bytes());
        Ended::of(child.wait_with_output().expect("wait"))
    }
}

/// How a run of the binary ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

pub(crate) fn image(name: &str) -> Image {
    Image {
        id: format!("sha256:1c46c8a3e01e{}", "0".repeat(52)),
        repo_tags: vec![name.to_owned()],
        created_at: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
        size: 1_240_000,
        ..Default::default()
    }
}

impl Fake {
    fn saw(&self, update: impl FnOnce(&mut Seen)) {
        update(&mut self.0.seen.lock().expect("lock"));
        self.0.changed.send_modify(|n| *n += 1);
    }

    fn call(&self, name: &str) {
        self.saw(|seen| seen.calls.push(name.to_owned()));
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().expect("lock")
    }

    async fn exit_code(&self) -> u32 {
        let mut exited = self.0.exited.subscribe();
        exited.wait_for(Option::is_some).await.expect("engine").expect("exited")
    }

    fn no_container(name: &str) -> Status {
        Status::not_found(format!("No such container: {name}"))
    }

    async fn input(self, mut requests: Streaming<AttachRequest>) {
        while let Ok(Some(message)) = requests.message().await {
            match message.kind {
                Some(attach_request::Kind::Stdin(bytes)) => self.saw(|seen| seen.stdin.extend(&bytes)),
                Some(attach_request::Kind::Resize(size)) => {
                    self.saw(|seen| seen.sizes.push((size.rows, size.columns)));
                }
                Some(attach_request::Kind::StdinClosed(_)) => {
                    self.call("stdin closed");
                    self.0.exited.send_replace(Some(0));
                }
                _ => {}
            }
        }
    }

    async fn output(self, answers: mpsc::Sender<Result<AttachResponse, Status>>) {
        let mut started = self.0.started.subscribe();
        if started.wait_for(|started| *started).await.is_err() {
            return;
        }
        let output = self.script().output.clone();
        for (stream, text) in output {
            let output = attach_response::Output { stream: stream.into(), data: text.into() };
            let answer = AttachResponse { kind: Some(attach_response::Kind::Output(output)) };
            if answers.send(Ok(answer)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            _ = self.exit_code() => {}
            () = answers.closed() => {}
        }
    }
}

fn stream<T: Send + 'static>(items: Vec<Result<T, Status>>) -> Response<Answers<T>> {
    Response::new(Box::pin(tokio_stream::iter(items)))
}

#[tonic::async_trait]
impl Containers for Fake {
    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let request = request.into_inner();
        let wanted = request.config.clone().unwrap_or_default().image;
        self.call("create");
        if !self
            .script()
            .images
            .iter()
            .any(|i| i.repo_tags.iter().any(|t| *t == wanted || *t == format!("{wanted}:latest")))
        {
            return Err(Status::not_found(format!("No such image: {wanted}")));
        }
        self.saw(|seen| seen.created = Some(request));
        Ok(Response::new(CreateContainerResponse { id: ID.into(), name: NAME.into(), warnings: vec![] }))
    }

    async fn start(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        let name = request.into_inner().container;
        self.call("start");
        if name == "missing" {
            return Err(Self::no_container(&name));
        }
        let (error, exit) = {
            let script = self.script();
            (script.start_error.clone(), script.exit)
        };
        if let Some(error) = error {
            return Err(error);
        }
        self.0.started.send_replace(true);
        self.0.exited.send_replace(exit);
        Ok(Response::new(Default::default()))
    }

    async fn wait(
        &self,
        request: Request<WaitContainerRequest>,
    ) -> Result<Response<WaitContainerResponse>, Status> {
        let request = request.into_inner();
        self.call(&format!("wait {:?}", request.condition()));
        if request.container == "missing" {
            return Err(Self::no_container(&request.container));
        }
        let exit_code = self.exit_code().await;
        if self.script().gone {
            return Err(Self::no_container(&request.container));
        }
        Ok(Response::new(WaitContainerResponse { exit_code, ..Default::default() }))
    }

    async fn kill(
        &self,
        request: Request<KillContainerRequest>,
    ) -> Result<Response<KillContainerResponse>, Status> {
        let request = request.into_inner();
        if request.container == "missing" {
            return Err(Self::no_container(&request.container));
        }
        self.call(&format!("kill {}", request.signal));
        self.0.exited.send_replace(Some(if request.signal == "SIGTERM" { 143 } else { 137 }));
        Ok(Response::new(Default::default()))
    }

    async fn stop(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<StopContainerResponse>, Status> {
        let request = request.into_inner();
        if request.container == "missing" {
            return Err(Self::no_container(&request.container));
        }
        self.call(&format!("stop {:?}", request.timeout));
        Ok(Response::new(Default::default()))
    }

    async fn remove(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Response<RemoveContainerResponse>, Status> {
        let request = request.into_inner();
        if request.container == "missing" {
            return Err(Self::no_container(&request.container));
        }
        self.call(&format!("remove force={}", request.force));
        Ok(Response::new(Default::default()))
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let request = request.into_inner();
        self.call(&format!(
            "list all={} limit={} filters={}",
            request.all,
            request.limit,
            request.filters.len()
        ));
        Ok(Response::new(ListContainersResponse { containers: self.script().containers.clone() }))
    }

    async fn inspect(
        &self,
        request: Request<InspectContainerRequest>,
    ) -> Result<Response<InspectContainerResponse>, Status> {
        let name = request.into_inner().container;
        let container = self.script().inspect.get(&name).cloned();
        let container = container.ok_or_else(|| Self::no_container(&name))?;
        Ok(Response::new(InspectContainerResponse { container: Some(container) }))
    }

    type LogsStream = Answers<LogsResponse>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        self.call(&format!("logs follow={} tail={:?}", request.follow, request.tail));
        if request.container == "missing" {
            return Err(Self::no_container(&request.container));
        }
        Ok(stream(self.script().log.iter().cloned().map(Ok).collect()))
    }

    type AttachStream = Answers<AttachResponse>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut requests = request.into_inner();
        let Some(AttachRequest { kind: Some(attach_request::Kind::Open(open)) }) = requests.message().await?
        else {
            return Err(Status::invalid_argument("open comes first"));
        };
        self.call(&format!("attach stdin={}", open.stdin));
        let (answers, queue) = mpsc::channel(8);
        let attached = attach_response::Attached { tty: false };
        let attached = AttachResponse { kind: Some(attach_response::Kind::Attached(attached)) };
        answers.send(Ok(attached)).await.map_err(|_| Status::cancelled("gone"))?;
        tokio::spawn(self.clone().input(requests));
        tokio::spawn(self.clone().output(answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(queue))))
    }

    async fn pause(
        &self,
        request: Request<PauseContainerRequest>,
    ) -> Result<Response<PauseContainerResponse>, Status> {
        self.call(&format!("pause {}", request.into_inner().container));
        Ok(Response::new(Default::default()))
    }

    async fn unpause(
        &self,
        request: Request<UnpauseContainerRequest>,
    ) -> Result<Response<UnpauseContainerResponse>, Status> {
        self.call(&format!("unpause {}", request.into_inner().container));
        Ok(Response::new(Default::default()))
    }

    async fn rename(
        &self,
        request: Request<RenameContainerRequest>,
    ) -> Result<Response<RenameContainerResponse>, Status> {
        let request = request.into_inner();
        self.call(&format!("rename {} {}", request.container, request.new_name));
        Ok(Response::new(Default::default()))
    }

    async fn restart(
        &self,
        request: Request<RestartContainerRequest>,
    ) -> Result<Response<RestartContainerResponse>, Status> {
        let request = request.into_inner();
        self.call(&format!("restart {} {} {:?}", request.container, request.signal, request.timeout));
        Ok(Response::new(Default::default()))
    }

    type StatsStream = Answers<ContainerStatsResponse>;

    async fn stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Result<Response<Self::StatsStream>, Status> {
        let request = request.into_inner();
        self.call(&format!("stats {:?} all={} stream={}", request.containers, request.all, request.stream));
        let rounds = self.script().stats.clone();
        Ok(stream(rounds.into_iter().map(|containers| Ok(ContainerStatsResponse { containers })).collect()))
    }

    async fn top(
        &self,
        request: Request<TopContainerRequest>,
    ) -> Result<Response<TopContainerResponse>, Status> {
        let request = request.into_inner();
        self.call(&format!("top {} {:?}", request.container, request.ps_args));
        let process = top_container_response::Process { values: vec!["7".into(), "x\u{1b}[2J".into()] };
        Ok(Response::new(TopContainerResponse {
            titles: vec!["PID".into(), "CMD".into()],
            processes: vec![process],
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        self.call(&format!("update {}", request.into_inner().container));
        Ok(Response::new(Default::default()))
    }

    async fn probe_health(
        &self,
        request: Request<ProbeHealthRequest>,
    ) -> Result<Response<ProbeHealthResponse>, Status> {
        self.call(&format!("probe health {}", request.into_inner().container));
        Ok(Response::new(Default::default()))
    }

    async fn prune(
        &self,
        request: Request<PruneContainersRequest>,
    ) -> Result<Response<PruneContainersResponse>, Status> {
        let request = request.into_inner();
        let until = request.until.map(|time| time.seconds);
        self.call(&format!("prune {until:?} {:?} {:?}", request.labels, request.without_labels));
        Ok(Response::new(PruneContainersResponse { removed: vec![ID.into()], space_reclaimed: 1_240_000 }))
    }

    async fn stat_path(&self, _: Request<StatPathRequest>) -> Result<Response<StatPathResponse>, Status> {
        Err(Status::not_found("Could not find the file /x in container c"))
    }

    type CopyFromStream = Answers<CopyFromResponse>;

    async fn copy_from(&self, _: Request<CopyFromRequest>) -> Result<Response<Self::CopyFromStream>, Status> {
        Err(Status::not_found("Could not find the file /x in container c"))
    }

    async fn copy_to(
        &self,
        _: Request<Streaming<CopyToRequest>>,
    ) -> Result<Response<CopyToResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn commit(
        &self,
        request: Request<CommitContainerRequest>,
    ) -> Result<Response<CommitContainerResponse>, Status> {
        let CommitContainerRequest { reference, author, message, changes, pause, .. } = request.into_inner();
        self.call(&format!("commit {reference} {author} {message} {changes:?} {pause}"));
        Ok(Response::new(CommitContainerResponse { image_id: format!("sha256:{ID}") }))
    }

    type ExportStream = Answers<ExportContainerResponse>;

    async fn export(
        &self,
        _: Request<ExportContainerRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        Ok(stream(vec![Ok(ExportContainerResponse { data: "tar".into() })]))
    }

    type DiffStream = Answers<DiffContainerResponse>;

    async fn diff(&self, _: Request<DiffContainerRequest>) -> Result<Response<Self::DiffStream>, Status> {
        use diff_container_response::{Change, Kind};
        let change = |kind: Kind, path: &[u8]| Change { kind: kind.into(), path: path.to_vec().into() };
        let changes = vec![
            change(Kind::Changed, b"/etc"),
            change(Kind::Added, b"/etc/\x1b[2J\nx"),
            change(Kind::Deleted, b"/etc/old"),
        ];
        Ok(stream(vec![Ok(DiffContainerResponse { changes })]))
    }

    async fn resize_tty(&self, _: Request<ResizeTtyRequest>) -> Result<Response<ResizeTtyResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl Images for Fake {
    type PullStream = Answers<PullImageResponse>;

    async fn pull(&self, request: Request<PullImageRequest>) -> Result<Response<Self::PullStream>, Status> {
        self.call("pull");
        let mut script = self.script();
        if let Some(error) = script.pull_error.clone() {
            return Err(error);
        }
        script.images.push(image(&request.into_inner().image));
        Ok(stream(script.pull.iter().cloned().map(Ok).collect()))
    }

    async fn list(&self, _: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        Ok(Response::new(ListImagesResponse { images: self.script().images.clone() }))
    }

    async fn inspect(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<InspectImageResponse>, Status> {
        let name = request.into_inner().image;
        let image = self.script().images.iter().find(|i| i.repo_tags.contains(&name)).cloned();
        let image = image.ok_or_else(|| Status::not_found(format!("No such image: {name}")))?;
        Ok(Response::new(InspectImageResponse { image: Some(image), ..Default::default() }))
    }

    async fn remove(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let name = request.into_inner().image;
        if name == "missing" {
            return Err(Status::not_found("No such image: missing:latest"));
        }
        Ok(Response::new(RemoveImageResponse { untagged: vec![name], deleted: vec!["sha256:ab".into()] }))
    }

    async fn prune(
        &self,
        request: Request<PruneImagesRequest>,
    ) -> Result<Response<PruneImagesResponse>, Status> {
        self.call(&format!("images prune all={}", request.get_ref().all));
        Ok(Response::new(PruneImagesResponse {
            untagged: vec!["a:1".into()],
            deleted: vec!["sha256:ab".into()],
            space_reclaimed: 1000,
        }))
    }

    async fn mount(
        &self,
        request: Request<MountImageRequest>,
    ) -> Result<Response<MountImageResponse>, Status> {
        let MountImageRequest { image, path, .. } = request.into_inner();
        self.call(&format!("mount {image} {path}"));
        Ok(Response::new(MountImageResponse { path, image_id: image }))
    }

    async fn unmount(
        &self,
        request: Request<UnmountImageRequest>,
    ) -> Result<Response<UnmountImageResponse>, Status> {
        self.call(&format!("unmount {}", request.into_inner().path));
        Ok(Response::new(UnmountImageResponse {}))
    }

    async fn list_mounts(
        &self,
        _: Request<ListImageMountsRequest>,
    ) -> Result<Response<ListImageMountsResponse>, Status> {
        Ok(Response::new(ListImageMountsResponse::default()))
    }

    async fn pin(&self, request: Request<PinImageRequest>) -> Result<Response<PinImageResponse>, Status> {
        let PinImageRequest { image, unpin, .. } = request.into_inner();
        self.call(&format!("pin {image} {}", !unpin));
        Ok(Response::new(PinImageResponse {}))
    }

    async fn tag(&self, request: Request<TagImageRequest>) -> Result<Response<TagImageResponse>, Status> {
        let request = request.into_inner();
        self.call(&format!("tag {} {}", request.source, request.target));
        Ok(Response::new(Default::default()))
    }

    type LoadStream = Answers<LoadImageResponse>;

    async fn load(
        &self,
        request: Request<Streaming<LoadImageRequest>>,
    ) -> Result<Response<Self::LoadStream>, Status> {
        let mut messages = request.into_inner();
        let mut length = 0;
        while let Some(message) = messages.message().await? {
            length += message.data.len();
        }
        self.call(&format!("load {length}"));
        let loaded = LoadedImage { id: "sha256:ab".into(), references: vec!["hello-world:latest".into()] };
        Ok(stream(vec![Ok(LoadImageResponse { kind: Some(load_image_response::Kind::Loaded(loaded)) })]))
    }

    async fn list_tags(
        &self,
        request: Request<ListTagsRequest>,
    ) -> Result<Response<ListTagsResponse>, Status> {
        let repository = request.into_inner().repository;
        self.call(&format!("tags {repository}"));
        let tags = if repository == "empty" { vec![] } else { vec!["1".into(), "2".into()] };
        Ok(Response::new(ListTagsResponse { tags }))
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let LoginRequest { registry, auth } = request.into_inner();
        let auth = auth.unwrap_or_default();
        self.call(&format!("login {registry} {} {}", auth.username, auth.password));
        match auth.password.as_str() {
            "right" => Ok(Response::new(LoginResponse::default())),
            "token" => Ok(Response::new(LoginResponse { identity_token: "kept".into() })),
            _ => Err(Status::unauthenticated("unauthorized: incorrect username or password")),
        }
    }

    type PushStream = Answers<PushImageResponse>;

    async fn push(&self, request: Request<PushImageRequest>) -> Result<Response<Self::PushStream>, Status> {
        use berth::api::v1::{layer_progress::Phase, push_image_response::Kind};
        let request = request.into_inner();
        self.call(&format!("push {} all_tags={}", request.image, request.all_tags));
        let layer = |digest: &str, phase: Phase| {
            Kind::Layer(LayerProgress { digest: digest.into(), phase: phase.into(), current: 1, total: 2 })
        };
        let kinds = [
            Kind::Resolved(PullResolved { reference: "127.0.0.1:5000/app".into(), layers: vec![] }),
            layer("sha256:aaaaaaaaaaaaaaaa", Phase::Pushing),
            layer("sha256:aaaaaaaaaaaaaaaa", Phase::Pushed),
            layer("sha256:bbbbbbbbbbbbbbbb", Phase::AlreadyThere),
            Kind::Pushed(PushedTag {
                tag: "1".into(),
                digest: "sha256:cc".into(),
                size: 428,
                left_out: String::new(),
            }),
        ];
        Ok(stream(kinds.into_iter().map(|kind| Ok(PushImageResponse { kind: Some(kind) })).collect()))
    }

    type SaveStream = Answers<SaveImageResponse>;

    async fn import(
        &self,
        request: Request<Streaming<ImportImageRequest>>,
    ) -> Result<Response<ImportImageResponse>, Status> {
        let mut parts = request.into_inner();
        while parts.message().await?.is_some() {}
        Ok(Response::new(ImportImageResponse { image_id: format!("sha256:{ID}") }))
    }

    async fn save(&self, request: Request<SaveImageRequest>) -> Result<Response<Self::SaveStream>, Status> {
        let images = request.into_inner().images;
        self.call(&format!("save {}", images.join(" ")));
        let mut answers =
            vec![Ok(SaveImageResponse { data: "arch".into() }), Ok(SaveImageResponse { data: "ive".into() })];
        if images.iter().any(|image| image == "damaged") {
            answers.push(Err(Status::data_loss("blob sha256:ab is damaged: pull the image again")));
        }
        Ok(stream(answers))
    }
}

#[tonic::async_trait]
impl Events for Fake {
    type SubscribeStream = Answers<SubscribeResponse>;

    async fn subscribe(
        &self,
        _: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let events = self.script().events.clone();
        let first = subscribe_response::Kind::Subscribed(Subscribed { cursor: 0 });
        let kinds = std::iter::once(first).chain(events.into_iter().map(subscribe_response::Kind::Event));
        Ok(stream(kinds.map(|kind| Ok(SubscribeResponse { kind: Some(kind) })).collect()))
    }
}

#[tonic::async_trait]
impl System for Fake {
    async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: "9.9.9".into(),
            os: "linux".into(),
            ..Default::default()
        }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse {
            images: 4,
            warnings: vec!["no swap limit".into()],
            ..Default::default()
        }))
    }

    async fn disk_usage(&self, _: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        Ok(Response::new(DiskUsageResponse { size: 1000, ..Default::default() }))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

/// Asks a child to end.
#[expect(clippy::disallowed_methods, reason = "a child that isn't waited for keeps its pid")]
pub(crate) fn terminate(child: &std::process::Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
}
