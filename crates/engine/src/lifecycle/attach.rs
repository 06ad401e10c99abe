// SPDX-License-Identifier: Apache-2.0
//! A client's connection to the stdio of a container.
//!
//! Bytes go from the client to the shim and back through small queues; a slow
//! client slows itself down, and beyond the shim's own limits is dropped.

use std::{io, sync::Arc};

use berth::{
    api::shim::AttachOpen,
    attach::{Frame, Kind as FrameKind},
    ids::ContainerId,
};
use bytes::Bytes;
use futures_util::{Stream as InputStream, StreamExt as _};
use tokio::sync::mpsc;

use super::{
    containers::{Attaching, Containers, Live, Phase, unreachable},
    logs::{LogOptions, Place, Stream},
};
use crate::{
    domain::{container::Document, log::LogDriver, record::Record, state::Status},
    error::{Error, Kind, Result},
    shim::attach::{self, Input, Output},
};

/// Messages on their way to the client.
const QUEUE: usize = 16;

/// What to connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of the protocol")]
pub struct AttachOptions {
    /// Send input.
    pub stdin: bool,
    /// Receive stdout.
    pub stdout: bool,
    /// Receive stderr.
    pub stderr: bool,
    /// What the log holds comes first.
    pub logs: bool,
    /// One that has exited: wait for its next start.
    pub next_start: bool,
    /// The container waits for it, within limits.
    pub wait: bool,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachInput {
    /// Bytes for stdin.
    Stdin(Bytes),
    /// No more of them.
    Close,
    /// Its terminal has changed.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
}

/// What a client receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttachOutput {
    /// From now on no output is missed.
    Attached {
        /// The container has a terminal.
        tty: bool,
    },
    /// The container's output.
    Output(Stream, Bytes),
    /// So many bytes of it are missing here.
    Missed(u64),
}

/// What comes from a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// Its output.
    Output(Stream, Bytes),
    /// So many bytes of it are missing here.
    Missed(u64),
}

type Sender = mpsc::Sender<Result<AttachOutput>>;

impl Containers {
    /// Connects a client. The first message is `Attached`; the stream ends
    /// with the container's output. Dropping the receiver detaches.
    ///
    /// # Errors
    /// `FailedPrecondition` when the container has exited, `Unavailable` when
    /// its shim doesn't answer.
    pub async fn attach(
        self: &Arc<Self>,
        record: &Record,
        options: AttachOptions,
        inputs: impl InputStream<Item = AttachInput> + Send + Unpin + 'static,
    ) -> Result<mpsc::Receiver<Result<AttachOutput>>> {
        let entry = self.entry(&record.id);
        // Before its status is read: a start from here on waits for us.
        let attaching = entry.attaching();
        let mut view = entry.subscribe();
        let ends = view.borrow_and_update().ends;
        let gone = || Error::new(Kind::NotFound, format!("No such container: {}", record.id));
        let record = self.reload(record).await?.ok_or_else(gone)?;
        let exited = record.status == Status::Exited && !options.next_start;
        if exited || record.status == Status::Removing {
            let what = format!("container {} has exited: start it first", record.id);
            return Err(Error::new(Kind::FailedPrecondition, what));
        }
        if matches!(view.borrow().phase, Phase::Unreachable(_)) && record.status == Status::Running {
            return Err(unreachable(&record));
        }
        let document = self.document(record.id.clone()).await?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let session = Session { containers: &this, record: &record, options, document };
            let outcome = async {
                let live = tokio::select! {
                    live = session.live(&mut view, ends, &sender) => live?,
                    () = sender.closed() => return Ok(()),
                };
                match live {
                    Some((live, announced)) => {
                        session.run(&live, attaching, announced, inputs, &sender).await
                    }
                    None => Ok(()),
                }
            };
            if let Err(e) = outcome.await {
                // A client that has gone doesn't want to know.
                drop(sender.send(Err(e)).await);
            }
        });
        Ok(receiver)
    }

    /// Everything that was asked for and is in force.
    pub(super) async fn document(self: &Arc<Self>, id: ContainerId) -> Result<Document> {
        self.blocking(move |this| this.read_document(&id)).await
    }
}

/// Whether the client has been told already that it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    Yes,
    No,
}

/// One client.
struct Session<'a> {
    containers: &'a Arc<Containers>,
    record: &'a Record,
    options: AttachOptions,
    document: Document,
}

impl Session<'_> {
    /// The container's shim, now or when it is started. `None` when the client
    /// has gone.
    async fn live(
        &self,
        view: &mut tokio::sync::watch::Receiver<super::containers::View>,
        ends: u64,
        out: &Sender,
    ) -> Result<Option<(Arc<Live>, Announced)>> {
        if let Phase::Running(live) = &view.borrow_and_update().phase {
            return Ok(Some((Arc::clone(live), Announced::No)));
        }
        // The start waits for us: we are as good as attached, and the client
        // may wait for this before it starts the container.
        if out.send(Ok(self.attached())).await.is_err() {
            return Ok(None);
        }
        let seen = view
            .wait_for(|view| {
                let there = matches!(view.phase, Phase::Prepared(_) | Phase::Running(_) | Phase::Removed);
                there || view.ends != ends
            })
            .await;
        let gone = || Error::new(Kind::NotFound, format!("No such container: {}", self.record.id));
        let seen = seen.map_err(|_| gone())?;
        match &seen.phase {
            Phase::Prepared(live) | Phase::Running(live) => Ok(Some((Arc::clone(live), Announced::Yes))),
            Phase::Removed if seen.ends == ends => Err(gone()),
            // It could not be started; Start's caller is told why.
            _ => Ok(None),
        }
    }

    fn attached(&self) -> AttachOutput {
        AttachOutput::Attached { tty: self.document.config.tty }
    }

    async fn run(
        &self,
        live: &Live,
        attaching: Attaching,
        announced: Announced,
        inputs: impl InputStream<Item = AttachInput> + Unpin,
        out: &Sender,
    ) -> Result<()> {
        // The log tells it all, in order and once; a terminal's last line is
        // in no log until it ends, so that one is shown live from where its
        // log ends now.
        let from_log = self.options.logs && !self.document.config.tty && self.is_logged();
        let AttachOptions { stdin, stdout, stderr, logs, .. } = self.options;
        let wanted = AttachOpen {
            stdin,
            stdout: stdout && !from_log,
            stderr: stderr && !from_log,
            exec_id: String::new(),
            // An engine that is killed isn't a client that leaves: it says so.
            keep_stdin: true,
            wait: self.options.wait,
            mark: logs,
        };
        let (input, output, mark) = attach::open_marked(live.bundle.dir(), wanted).await?;
        let until = mark.map(|(segment, offset)| Place { segment, offset });
        drop(attaching);
        if announced == Announced::No && out.send(Ok(self.attached())).await.is_err() {
            return Ok(());
        }
        self.containers.tell(self.record, "attach", &[]).await?;
        let receive = async {
            if from_log {
                return self.replay(true, None, out).await;
            }
            if logs && self.is_logged() {
                self.replay(false, until, out).await?;
            }
            receive(output, out, wrap).await
        };
        let mut input = input;
        let ended = tokio::select! {
            received = receive => Some(received),
            never = send(&mut input, inputs, stdin) => match never {},
            () = out.closed() => None,
        };
        if out.is_closed() {
            self.client_left(&mut input).await;
        }
        match ended {
            Some(received) => received,
            None => self.containers.tell(self.record, "detach", &[]).await,
        }
    }

    /// The input that was for its first client alone ends with it. While the
    /// engine stops it is we who leave, and the client comes back.
    async fn client_left(&self, input: &mut Input) {
        let config = &self.document.config;
        if self.options.stdin && config.stdin_once && !config.tty && !self.containers.is_stopping() {
            // Fails when the container has ended: then it's closed.
            drop(input.close_stdin().await);
        }
    }

    fn is_logged(&self) -> bool {
        self.document.config.host.log.driver != LogDriver::None
    }

    async fn replay(&self, follow: bool, before: Option<Place>, out: &Sender) -> Result<()> {
        let AttachOptions { stdout, stderr, .. } = self.options;
        let options = LogOptions { follow, stdout, stderr, before, ..LogOptions::default() };
        let mut lines = self.containers.logs(self.record, options).await?;
        while let Some(line) = lines.recv().await {
            let (line, _) = line?;
            if out.send(Ok(AttachOutput::Output(line.stream, line.data))).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Hands the client's messages on. Never returns: the end of a client's
/// messages is not its departure.
async fn send(
    input: &mut Input,
    mut inputs: impl InputStream<Item = AttachInput> + Unpin,
    stdin: bool,
) -> std::convert::Infallible {
    while let Some(message) = inputs.next().await {
        if let Err(e) = deliver(input, message, stdin).await {
            // The shim has closed the connection: its output ends, too.
            tracing::debug!(error = e.chain(), "a container takes no more input");
            break;
        }
    }
    std::future::pending().await
}

/// Hands one message on.
pub(super) async fn deliver(input: &mut Input, message: AttachInput, stdin: bool) -> Result<()> {
    match message {
        AttachInput::Stdin(bytes) if stdin => input.stdin(&bytes).await,
        AttachInput::Close if stdin => input.close_stdin().await,
        AttachInput::Stdin(_) | AttachInput::Close => Ok(()),
        AttachInput::Resize { rows, columns } => input.resize(rows, columns).await,
    }
}

fn wrap(piece: Piece) -> Result<AttachOutput> {
    Ok(match piece {
        Piece::Output(stream, bytes) => AttachOutput::Output(stream, bytes),
        Piece::Missed(bytes) => AttachOutput::Missed(bytes),
    })
}

/// Hands all output to a client, until one of them ends.
pub(super) async fn receive<T>(
    mut output: Output,
    out: &mpsc::Sender<Result<T>>,
    wrap: fn(Piece) -> Result<T>,
) -> Result<()> {
    loop {
        let frame = match output.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(()),
            // A shim that was killed: the container's end says so.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) => {
                return Ok(());
            }
            Err(e) => return Err(Error::new(Kind::Unavailable, "read the container's output").with_source(e)),
        };
        let Frame { kind, payload } = frame;
        let piece = match kind {
            FrameKind::Stdout => Piece::Output(Stream::Stdout, payload),
            FrameKind::Stderr => Piece::Output(Stream::Stderr, payload),
            FrameKind::Missed => {
                Piece::Missed(payload.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
            }
            FrameKind::Error => {
                let why = String::from_utf8_lossy(&payload).into_owned();
                return Err(Error::new(Kind::ResourceExhausted, why));
            }
            _ => continue,
        };
        if out.send(wrap(piece)).await.is_err() {
            return Ok(());
        }
    }
}
