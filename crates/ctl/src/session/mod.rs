// SPDX-License-Identifier: Apache-2.0
//! Being attached to a container: our stdin, stdout, stderr, terminal and
//! signals on one side, the engine's streams on the other.
//!
//! A session begins with [`Session::open`], which returns once no byte of
//! output can be missed any more, and goes on with [`Session::run`] until the
//! container has exited, the user detaches, or the engine stays away. Used by
//! `run`, `start -a` and `attach`.

pub mod detach;
pub mod exec;
mod exit;
mod resume;
mod signals;
mod source;
mod stdio;

use std::time::Duration;

use berth::api::v1::{AttachRequest, KillContainerRequest, Stream, attach_request, attach_response::Kind};
use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::{sync::mpsc, time};
use tonic::Code;

use crate::{
    context::Context,
    error::{BERTH_FAILED, Error, FAILED, Result},
    output, terminal,
    terminal::RawMode,
};
use detach::{Detector, Keys, Typed};
pub use exit::Exit;
use signals::Signals;
use source::{Piece, Source};
use stdio::Port;

/// How long output may stay silent after the exit before it counts as over:
/// the engine ends the stream, this is for one that doesn't.
const SILENCE: Duration = Duration::from_secs(5);
/// Largest piece of input in one message.
const INPUT: usize = 32 * 1024;
/// So many requests to end, and we end whatever the container does.
const PATIENCE: u32 = 3;

/// What to attach, and how.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "as independent as the streams are")]
pub struct Options {
    /// Hand our stdin on.
    pub stdin: bool,
    /// Print the container's stdout.
    pub stdout: bool,
    /// Print the container's stderr.
    pub stderr: bool,
    /// The container has a terminal.
    pub tty: bool,
    /// Signals go to the container (without a terminal).
    pub sig_proxy: bool,
    /// Keys that leave the terminal.
    pub detach_keys: Keys,
    /// The log holds all output from the first byte this session prints, so
    /// that it can fill a gap.
    pub from_start: bool,
    /// The container has exited and is about to be started again.
    pub next_start: bool,
    /// What the container has printed before comes first.
    pub logs: bool,
    /// The container waits for us, within limits.
    pub wait: bool,
}

/// Whom a session is attached to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Full id.
    pub id: String,
    /// As users know it.
    pub name: String,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The container has exited.
    Exited(u8),
    /// The user left; the container goes on.
    Detached,
}

/// An open attachment.
#[derive(Debug)]
pub struct Session {
    context: Context,
    target: Target,
    options: Options,
    source: Source,
    /// Kept open for our stdin while the output comes from the log.
    stdin_only: Option<Source>,
    requests: mpsc::Sender<AttachRequest>,
    stdin: Port,
    stdout: Port,
    stderr: Port,
    signals: Signals,
    window: Signals,
    /// Restores our terminal when the session is dropped.
    _raw: Option<RawMode>,
    detector: Option<Detector>,
    input: Input,
    /// Bytes for our stdout or stderr that aren't written yet.
    pending: Option<(Stream, Bytes)>,
    /// Bytes that came, of stdout and of stderr.
    received: [u64; 2],
    end_requests: u32,
}

/// What is left of our stdin.
#[derive(Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// Read, and waiting for room in the stream.
    Waiting(AttachRequest),
    /// Waiting like that, and the user wants to leave after it.
    Leaving(AttachRequest),
    Closed,
}

/// What happened next.
enum Step {
    Output(Result<Option<Piece>>),
    Written(std::io::Result<usize>),
    Typed(std::io::Result<usize>),
    Room(bool),
    Signal(Signal),
    Window,
    Exit(Result<u8>),
    Silence,
}

impl Session {
    /// Attaches. On a terminal, ours is in raw mode from here on until the
    /// session is dropped.
    ///
    /// # Errors
    /// Those of the engine, and of our terminal.
    pub async fn open(context: &Context, target: Target, options: Options) -> Result<Self> {
        let (source, requests) = source::attach(context, &target.id, &options, options.stdin).await?;
        let raw = if options.tty && options.stdin { Some(RawMode::enter()?) } else { None };
        let signals = match (options.tty, options.sig_proxy) {
            (true, _) => Signals::ending()?,
            (false, true) => Signals::handed_on()?,
            (false, false) => Signals::none(),
        };
        let detector = (options.tty && options.stdin).then(|| Detector::new(options.detach_keys.clone()));
        // That start is the one that comes now; an attachment after a lost
        // engine is to the running container.
        let options = Options { next_start: false, logs: false, ..options };
        let session = Self {
            context: context.clone(),
            target,
            source,
            stdin_only: None,
            requests,
            stdin: stdio::stdin(),
            stdout: stdio::stdout(),
            stderr: stdio::stderr(),
            signals,
            window: if options.tty { Signals::window()? } else { Signals::none() },
            _raw: raw,
            detector,
            input: if options.stdin { Input::Open } else { Input::Closed },
            pending: None,
            received: [0; 2],
            end_requests: 0,
            options,
        };
        session.resize();
        Ok(session)
    }

    /// Tells the container's terminal the size of ours.
    pub fn resize(&self) {
        if self.options.tty
            && let Some(size) = terminal::size()
        {
            // A full channel means that the engine is busy with input; the
            // next change of size comes through.
            let _ = self.requests.try_send(request(attach_request::Kind::Resize(size)));
        }
    }

    /// Copies until the end. `exit` answers when the container has exited.
    ///
    /// # Errors
    /// When our own streams fail, when the engine refuses to go on, and when
    /// it stays away.
    pub async fn run(mut self, exit: Exit) -> Result<Outcome> {
        let mut exit = exit;
        let mut code = None;
        let mut over = false;
        let mut buffer = vec![0; INPUT];
        while !(over && self.pending.is_none() && code.is_some()) {
            match self.next(&mut exit, code.is_some(), over, &mut buffer).await {
                Step::Output(Ok(Some(Piece::Output(stream, data)))) => self.take(stream, data),
                Step::Output(Ok(Some(Piece::Missed(bytes)))) => self.missed(bytes),
                Step::Output(Ok(None)) => over = true,
                Step::Output(Err(error)) | Step::Exit(Err(error)) if error.is_lost() => {
                    // A lost engine is found out by whichever call comes first.
                    let resumed = self.resume(&mut exit).await?;
                    over = resumed == resume::Resumed::NoOutput;
                }
                Step::Output(Err(error)) | Step::Exit(Err(error)) => return Err(error),
                Step::Written(result) => self.written(result)?,
                Step::Typed(result) => self.typed(&buffer[..result?]),
                Step::Room(open) => {
                    if self.send_input(open) {
                        return Ok(Outcome::Detached);
                    }
                }
                Step::Signal(signal) => self.signalled(signal)?,
                Step::Window => self.resize(),
                Step::Exit(Ok(status)) => code = Some(status),
                Step::Silence => over = true,
            }
        }
        Ok(code.map_or(Outcome::Detached, Outcome::Exited))
    }

    /// Waits for whatever comes next. Every branch is cancel-safe.
    async fn next(&mut self, exit: &mut Exit, exited: bool, over: bool, buffer: &mut [u8]) -> Step {
        let writing = self.pending.is_some();
        tokio::select! {
            biased;
            signal = self.signals.recv() => Step::Signal(signal),
            _ = self.window.recv() => Step::Window,
            result = write(&self.stdout, &self.stderr, self.pending.as_ref()), if writing => Step::Written(result),
            output = self.source.next(), if !writing && !over => Step::Output(output),
            permit = self.requests.reserve(), if matches!(self.input, Input::Waiting(_) | Input::Leaving(_)) => {
                Step::Room(permit.is_ok())
            }
            result = self.stdin.read(buffer), if self.input == Input::Open => Step::Typed(result),
            result = exit.wait(), if !exited => Step::Exit(result),
            () = time::sleep(SILENCE), if exited && !writing && !over => Step::Silence,
        }
    }

    fn missed(&mut self, bytes: u64) {
        // What was printed is no longer what the log begins with.
        self.options.from_start = false;
        let name = &self.target.name;
        output::warn(&format!("WARNING: {bytes} bytes of output are missing here: see berth logs {name}"));
    }

    fn take(&mut self, stream: Stream, data: Bytes) {
        let count = &mut self.received[usize::from(stream == Stream::Stderr)];
        *count += data.len() as u64;
        if !data.is_empty() {
            self.pending = Some((stream, data));
        }
    }

    fn written(&mut self, result: std::io::Result<usize>) -> Result<()> {
        let Some((stream, data)) = &mut self.pending else { return Ok(()) };
        match result {
            Ok(length) => {
                let _ = data.split_to(length.min(data.len()));
                if data.is_empty() {
                    self.pending = None;
                }
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                let what = if *stream == Stream::Stderr { "stderr" } else { "stdout" };
                output::warn(&format!(
                    "write {what}: broken pipe; container {} keeps running",
                    self.target.name
                ));
                Err(Error::from(error))
            }
            Err(error) => Err(Error::io("write output of the container", &error)),
        }
    }

    fn typed(&mut self, bytes: &[u8]) {
        self.input = match &mut self.detector {
            _ if bytes.is_empty() => Input::Waiting(source::stdin_closed()),
            None => Input::Waiting(source::stdin(bytes)),
            Some(detector) => match detector.feed(bytes) {
                Typed::Bytes(bytes) if bytes.is_empty() => Input::Open,
                Typed::Bytes(bytes) => Input::Waiting(source::stdin(&bytes)),
                Typed::Detach(bytes) => Input::Leaving(source::stdin(&bytes)),
            },
        };
    }

    /// Sends what was typed, now that there is room. Whether the user leaves.
    fn send_input(&mut self, open: bool) -> bool {
        let (message, leaving) = match std::mem::replace(&mut self.input, Input::Closed) {
            Input::Waiting(message) => (message, false),
            Input::Leaving(message) => (message, true),
            Input::Open | Input::Closed => return false,
        };
        if open && !source::is_stdin_closed(&message) {
            self.input = Input::Open;
        }
        // The stream may have ended in between: then nobody reads input.
        let _ = self.requests.try_send(message);
        leaving
    }

    fn signalled(&mut self, signal: Signal) -> Result<()> {
        if self.options.tty {
            // Keys reach the container as bytes; a signal to us is for us.
            return Err(Error::silent(exit::of_signal(signal)));
        }
        if matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
            self.end_requests += 1;
            if self.end_requests >= PATIENCE {
                let message = format!("got {PATIENCE} SIGTERM/SIGINTs, forcefully exiting");
                return Err(Error::session(message, FAILED));
            }
        }
        let request = KillContainerRequest {
            namespace: self.context.namespace.clone(),
            container: self.target.id.clone(),
            signal: signal.as_str().to_owned(),
        };
        let mut client = self.context.client.containers();
        // Detached from this loop, which must go on copying. That the
        // container has just exited is no news; that the engine is lost is
        // found out by the loop.
        tokio::spawn(async move {
            if let Err(error) = client.kill(request).await.map_err(Error::from)
                && !error.is_lost()
                && !error.is(Code::FailedPrecondition)
                && !error.is(Code::NotFound)
            {
                output::warn(&error.to_string());
            }
        });
        Ok(())
    }

    fn lost(&self) -> Error {
        let name = &self.target.name;
        let message = format!(
            "connection to the engine lost; container {name} keeps running: reconnect with berth attach {name}"
        );
        Error::session(message, BERTH_FAILED)
    }
}

async fn write(stdout: &Port, stderr: &Port, pending: Option<&(Stream, Bytes)>) -> std::io::Result<usize> {
    match pending {
        Some((Stream::Stderr, data)) => stderr.write(data).await,
        Some((_, data)) => stdout.write(data).await,
        None => Ok(0),
    }
}

fn request(kind: attach_request::Kind) -> AttachRequest {
    AttachRequest { kind: Some(kind) }
}

/// What an answer of Attach holds for us.
fn piece_of(kind: Option<Kind>) -> Option<Piece> {
    match kind {
        Some(Kind::Output(output)) => Some(Piece::Output(output.stream(), output.data)),
        Some(Kind::Missed(missed)) => Some(Piece::Missed(missed.bytes)),
        _ => None,
    }
}
