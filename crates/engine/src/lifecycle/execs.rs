// SPDX-License-Identifier: Apache-2.0
//! Processes that join a container that runs. What is true of them is known to
//! the container's shim, which an engine that starts later asks again.

use std::{convert::Infallible, sync::Arc};

use berth::{
    api::shim::{AttachOpen, ExecOptions, ExecProcess},
    failpoint,
    ids::{ExecId, Namespace},
};
use bytes::Bytes;
use futures_util::{Stream as InputStream, StreamExt as _, future::join_all};
use tokio::sync::{mpsc, oneshot};

use super::{
    attach::{self, AttachInput},
    containers::{Containers, Live, Next, PROBE_PREFIX, ToldOnce},
    logs::Stream,
};
use crate::{
    domain::{exec::ExecConfig, id, record::Record, signal, state::WaitAnswer},
    error::{Error, Kind, Result},
    shim::attach::{Input, Output},
};

/// Messages on their way to the client.
const QUEUE: usize = 16;

/// What to run, and for whom.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// What.
    pub config: ExecConfig,
    /// Keep stdin open for the client.
    pub stdin: bool,
    /// Nobody wants its streams.
    pub detach: bool,
    /// It ends with the client's connection.
    pub kill_on_disconnect: bool,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// For its streams.
    Stdio(AttachInput),
    /// Name or number of a signal.
    Signal(String),
}

/// What a client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// It runs.
    Started {
        /// Its id.
        id: ExecId,
        /// In the engine's pid namespace.
        pid: u32,
    },
    /// It has printed something.
    Output(Stream, Bytes),
    /// It has ended, and all of its output was sent.
    Exited(u8),
}

/// One process and whose it is.
#[derive(Debug)]
pub struct ListedExec {
    /// The container.
    pub container: Record,
    /// What the shim knows.
    pub process: ExecProcess,
}

type Sender = mpsc::Sender<Result<ExecOutput>>;

/// A process that runs, and the client's way to it.
struct Started {
    live: Arc<Live>,
    id: ExecId,
    pid: u32,
    streams: Option<(Input, Output)>,
    exit: oneshot::Receiver<Result<WaitAnswer>>,
}

/// Whom a process is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watch {
    /// A client, which is told of its end.
    ForClient,
    /// Nobody: `exec ls` tells of its end.
    ForNobody,
}

impl Containers {
    /// Runs a process in a container. The first message is `Started`; with
    /// `detach` it is the only one, else the last is `Exited`.
    ///
    /// # Errors
    /// `FailedPrecondition` when the container isn't running, and with an exit
    /// code when the command can't be executed; `InvalidArgument`.
    pub async fn exec(
        self: &Arc<Self>,
        record: &Record,
        request: ExecRequest,
        inputs: impl InputStream<Item = ExecInput> + Send + Unpin + 'static,
    ) -> Result<mpsc::Receiver<Result<ExecOutput>>> {
        request.config.check()?;
        let (this, record, stdin) = (Arc::clone(self), record.clone(), request.stdin);
        let started = Self::detached(async move { this.start_exec(record, request).await }).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            if let Err(e) = follow(started, stdin, inputs, &sender).await {
                // A client that has gone doesn't want to know.
                drop(sender.send(Err(e)).await);
            }
        });
        Ok(receiver)
    }

    async fn start_exec(self: &Arc<Self>, record: Record, request: ExecRequest) -> Result<Started> {
        let live = self.running(&record)?;
        let document = self.document(record.id.clone()).await?;
        let ExecRequest { config, stdin, detach, kill_on_disconnect } = request;
        let process = config.process(&document, self.all_capabilities());
        let process = serde_json::to_vec(&process)
            .map_err(|e| Error::new(Kind::Internal, "encode the process").with_source(e))?;
        let user = config.lookup(&document);
        let options = ExecOptions { process, user, open_stdin: stdin, stdin_once: stdin, kill_on_disconnect };
        let id: ExecId = id::fresh()?;
        live.task.add_exec(&id, config.tty.into(), &options).await?;
        failpoint::hit("exec.added")?;
        if let Err(e) = self.tell(&record, "exec_create", &[("execID", id.to_string())]).await {
            tracing::warn!(id = %record.id, error = e.chain(), "record what happened to an exec");
        }
        // From here on it may start and end, and its container with it.
        live.untold.expect(&id, Next::Start);
        let started = async {
            let streams = if detach { None } else { Some(open(&live, &id, stdin).await?) };
            Ok((live.task.start_exec(&id).await?, streams))
        };
        match started.await {
            Ok((pid, streams)) => {
                failpoint::pass("exec.started");
                let watch = if detach { Watch::ForNobody } else { Watch::ForClient };
                let exit = self.watch_exec(Arc::clone(&live), id.clone(), watch);
                Ok(Started { live, id, pid, streams, exit })
            }
            Err(e) => {
                live.untold.forget(&id);
                // One that isn't there any more needs no forgetting.
                let _ = live.task.delete_exec(&id).await;
                Err(explain(e))
            }
        }
    }

    /// Tells of a process' beginning and end.
    fn watch_exec(
        self: &Arc<Self>,
        live: Arc<Live>,
        id: ExecId,
        watch: Watch,
    ) -> oneshot::Receiver<Result<WaitAnswer>> {
        let (sender, receiver) = oneshot::channel();
        let this = Arc::clone(self);
        tokio::spawn(async move {
            this.tell_exec(&live, &id, None).await;
            let answer = live.task.wait_exec(&id).await;
            let end = answer.as_ref().ok().copied();
            // The client may have gone.
            drop(sender.send(answer));
            if end.is_some() {
                this.tell_exec(&live, &id, end).await;
                if watch == Watch::ForClient {
                    // A shim that has ended has forgotten it.
                    let _ = live.task.delete_exec(&id).await;
                }
            }
        });
        receiver
    }

    /// Tells of the processes that an earlier engine has started, as far as it
    /// hasn't, and goes on to watch those that run. The gate is held.
    pub(super) async fn adopt_execs(self: &Arc<Self>, live: &Arc<Live>, told: &ToldOnce) {
        let all = match live.task.execs().await {
            Ok(all) => all,
            // An older shim knows of none.
            Err(e) => return tracing::debug!(id = %live.id, error = e.chain(), "list execs"),
        };
        let is_left = |exec: &ExecProcess| exec.pid == 0 || exec.exec_id.starts_with(PROBE_PREFIX);
        let (left, started): (Vec<_>, Vec<_>) = all.into_iter().partition(is_left);
        if !left.is_empty() {
            tokio::spawn(end_left(Arc::clone(live), left));
        }
        if started.is_empty() {
            return;
        }
        self.catch_up_on_execs(live, &started, told).await;
        for id in started.iter().filter(|exec| exec.exited_at == 0).filter_map(id_of) {
            drop(self.watch_exec(Arc::clone(live), id, Watch::ForNobody));
        }
    }

    /// The processes in one container, or in all of a tenant that run; those
    /// that run themselves, and with `all` the last that have ended.
    ///
    /// # Errors
    /// `FailedPrecondition` when the named container isn't running.
    pub async fn list_execs(
        self: &Arc<Self>,
        namespace: &Namespace,
        container: Option<&Record>,
        all: bool,
    ) -> Result<Vec<ListedExec>> {
        let lives = match container {
            Some(record) => vec![self.running(record)?],
            None => self.all_running(namespace),
        };
        let listed = join_all(lives.iter().map(|live| self.execs_of(live, all))).await;
        let mut found = Vec::new();
        for one in listed {
            match one {
                Ok(execs) => found.extend(execs),
                // One that doesn't answer, or has just ended, hides no other.
                Err(e) if container.is_none() => tracing::warn!(error = e.chain(), "list execs"),
                Err(e) => return Err(e),
            }
        }
        found.sort_by_key(|exec| exec.process.started_at);
        Ok(found)
    }

    async fn execs_of(self: &Arc<Self>, live: &Arc<Live>, all: bool) -> Result<Vec<ListedExec>> {
        let mut processes = live.task.execs().await?;
        processes.retain(|exec| exec.pid != 0 && (all || exec.exited_at == 0));
        let container = self.find(&live.namespace, live.id.as_str()).await?;
        let listed = processes.into_iter();
        Ok(listed.map(|process| ListedExec { container: container.clone(), process }).collect())
    }

    /// Sends a signal (empty is SIGKILL) to a process; SIGKILL goes to all
    /// that it has started, where it has a cgroup.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument`, `FailedPrecondition` when it has ended.
    pub async fn kill_exec(
        self: &Arc<Self>,
        namespace: &Namespace,
        container: Option<&Record>,
        reference: &str,
        name: &str,
    ) -> Result<()> {
        let number = if name.is_empty() { libc::SIGKILL } else { signal::parse(name)? };
        let known = self.list_execs(namespace, container, true).await?;
        let found = pick(&known, reference)?;
        let missing = |_| Error::new(Kind::Internal, "the shim has named an exec that is none");
        let id: ExecId = found.process.exec_id.parse().map_err(missing)?;
        let live = self.running(&found.container)?;
        let all = number == libc::SIGKILL;
        live.task.kill_exec(&id, number.unsigned_abs(), all).await.map_err(|e| match e.kind() {
            Kind::NotFound => Error::new(Kind::FailedPrecondition, format!("exec {id} is not running")),
            _ => e,
        })
    }
}

/// Probes whose engine is gone, and what was never started: whoever wanted them
/// is gone.
async fn end_left(live: Arc<Live>, left: Vec<ExecProcess>) {
    for id in left.iter().filter_map(id_of) {
        // One that has ended needs no signal, and one that is gone nothing.
        let _ = live.task.kill_exec(&id, libc::SIGKILL.unsigned_abs(), true).await;
        let _ = live.task.delete_exec(&id).await;
    }
}

fn id_of(exec: &ExecProcess) -> Option<ExecId> {
    exec.exec_id.parse().ok()
}

/// The one whose id is, or begins with, `reference`.
fn pick<'a>(known: &'a [ListedExec], reference: &str) -> Result<&'a ListedExec> {
    if let Some(exact) = known.iter().find(|exec| exec.process.exec_id == reference) {
        return Ok(exact);
    }
    let is_meant = |exec: &&ListedExec| !reference.is_empty() && exec.process.exec_id.starts_with(reference);
    let mut matching = known.iter().filter(is_meant);
    match (matching.next(), matching.next()) {
        (Some(found), None) => Ok(found),
        (None, _) => Err(Error::new(Kind::NotFound, format!("No such exec instance: {reference}"))),
        (Some(_), Some(_)) => {
            let what = format!("Multiple execs found with provided prefix: {reference}");
            Err(Error::new(Kind::InvalidArgument, what))
        }
    }
}

/// Subscribes to the streams of a process that isn't started yet.
async fn open(live: &Live, id: &ExecId, stdin: bool) -> Result<(Input, Output)> {
    let wanted = AttachOpen {
        stdin,
        stdout: true,
        stderr: true,
        exec_id: id.to_string(),
        // It has no log to catch up from, and holds up nobody else.
        wait: true,
        ..AttachOpen::default()
    };
    crate::shim::attach::open(live.bundle.dir(), wanted).await
}

/// Docker's words around the reason.
fn explain(error: Error) -> Error {
    let Some(code) = error.exit_code() else { return error };
    let what = "OCI runtime exec failed: exec failed: unable to start container process";
    Error::new(error.kind(), what).with_source(error.chain()).with_exit_code(code)
}

/// Moves everything between a client and its process.
async fn follow(
    started: Started,
    stdin: bool,
    inputs: impl InputStream<Item = ExecInput> + Send + Unpin,
    out: &Sender,
) -> Result<()> {
    let Started { live, id, pid, streams, exit } = started;
    let first = ExecOutput::Started { id: id.clone(), pid };
    if out.send(Ok(first)).await.is_err() {
        return Ok(());
    }
    let Some((mut input, output)) = streams else { return Ok(()) };
    let until_the_end = async {
        attach::receive(output, out, wrap).await?;
        let unknown = || Error::new(Kind::Unavailable, "the exit status of the process is not known");
        let answer = exit.await.map_err(|_| unknown())?.map_err(|e| unknown().with_source(e.chain()))?;
        // The client may have gone.
        drop(out.send(Ok(ExecOutput::Exited(answer.exit_code))).await);
        Ok(())
    };
    tokio::select! {
        ended = until_the_end => ended,
        never = hand_on(&live, &id, &mut input, inputs, stdin) => match never {},
        () = out.closed() => Ok(()),
    }
}

/// Hands the client's messages on. Never returns: the end of a client's
/// messages is not its departure.
async fn hand_on(
    live: &Live,
    id: &ExecId,
    input: &mut Input,
    mut inputs: impl InputStream<Item = ExecInput> + Unpin,
    stdin: bool,
) -> Infallible {
    while let Some(message) = inputs.next().await {
        let sent = match message {
            ExecInput::Stdio(message) => attach::deliver(input, message, stdin).await,
            ExecInput::Signal(name) => match signal::parse(&name) {
                Ok(number) => live.task.kill_exec(id, number.unsigned_abs(), false).await,
                Err(e) => Err(e),
            },
        };
        if let Err(e) = sent {
            tracing::debug!(error = e.chain(), "a process takes no more from its client");
        }
    }
    std::future::pending().await
}

fn wrap(piece: attach::Piece) -> Result<ExecOutput> {
    match piece {
        attach::Piece::Output(stream, bytes) => Ok(ExecOutput::Output(stream, bytes)),
        attach::Piece::Missed(bytes) => {
            let what = format!("{bytes} bytes of output are missing: the client took none for 10 seconds");
            Err(Error::new(Kind::ResourceExhausted, what))
        }
    }
}
