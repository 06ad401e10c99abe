// SPDX-License-Identifier: Apache-2.0
//! Being attached to a process of `exec`: it has a stream of its own, which
//! ends with it, and no log that could fill a gap.

use berth::api::v1::{
    RunExecRequest, RunExecResponse, StdinClosed, Stream,
    run_exec_request::{Kind, Start},
    run_exec_response::Kind as Answer,
};
use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::{
    INPUT, Outcome,
    detach::{Detector, Keys, Typed},
    exit,
    signals::Signals,
    stdio::{self, Port},
    write,
};
use crate::{
    context::Context,
    error::{BERTH_FAILED, Error, Result},
    terminal::{self, RawMode},
};

/// Messages on their way to the engine.
const QUEUE: usize = 4;

/// A process that runs, and our streams.
#[derive(Debug)]
pub struct ExecSession {
    requests: mpsc::Sender<RunExecRequest>,
    answers: Streaming<RunExecResponse>,
    tty: bool,
    stdin: Port,
    stdout: Port,
    stderr: Port,
    signals: Signals,
    window: Signals,
    /// Restores our terminal when the session is dropped.
    _raw: Option<RawMode>,
    detector: Option<Detector>,
    input: Input,
    pending: Option<(Stream, Bytes)>,
}

/// What is left of our stdin.
#[derive(Debug)]
enum Input {
    Open,
    /// Read, and waiting for room in the stream; then this.
    Waiting(Kind, After),
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    GoOn,
    Close,
    Leave,
}

/// What happened next.
enum Step {
    Answer(Result<Option<RunExecResponse>>),
    Written(std::io::Result<usize>),
    Typed(std::io::Result<usize>),
    Room(bool),
    Signal(Signal),
    Window,
}

impl ExecSession {
    /// Starts the process; returns once it runs. On a terminal, ours is in raw
    /// mode from here on until the session is dropped.
    ///
    /// # Errors
    /// Those of the engine, and of our terminal.
    pub async fn open(context: &Context, start: Start, sig_proxy: bool, keys: Keys) -> Result<Self> {
        let (tty, reads, detached) = (start.tty, start.stdin, start.detach);
        let (requests, queue) = mpsc::channel(QUEUE);
        let first = RunExecRequest { kind: Some(Kind::Start(start)) };
        requests.try_send(first).map_err(|_| Error::new("the request queue is full"))?;
        let mut answers = context.client.execs().run(ReceiverStream::new(queue)).await?.into_inner();
        let Some(RunExecResponse { kind: Some(Answer::Started(_)) }) = answers.message().await? else {
            return Err(Error::new("the engine did not say that the process runs"));
        };
        let signals = match (tty, sig_proxy && !detached) {
            (true, _) => Signals::ending()?,
            (false, true) => Signals::handed_on()?,
            (false, false) => Signals::none(),
        };
        Ok(Self {
            requests,
            answers,
            tty,
            stdin: stdio::stdin(),
            stdout: stdio::stdout(),
            stderr: stdio::stderr(),
            signals,
            window: if tty { Signals::window()? } else { Signals::none() },
            _raw: if tty && reads { Some(RawMode::enter()?) } else { None },
            detector: (tty && reads).then(|| Detector::new(keys)),
            input: if reads { Input::Open } else { Input::Closed },
            pending: None,
        })
    }

    /// Copies until the process has ended, or the user leaves it.
    ///
    /// # Errors
    /// When our own streams fail, or the engine goes away.
    pub async fn run(mut self) -> Result<Outcome> {
        // Ours may have changed since it was asked for.
        self.resize();
        let mut code = None;
        let mut buffer = vec![0; INPUT];
        loop {
            if let (Some(code), None) = (code, &self.pending) {
                return Ok(Outcome::Exited(code));
            }
            match self.next(&mut buffer).await {
                Step::Answer(Ok(answer)) => match answer.and_then(|answer| answer.kind) {
                    Some(Answer::Output(output)) if !output.data.is_empty() => {
                        self.pending = Some((output.stream(), output.data));
                    }
                    Some(Answer::Exited(exited)) => {
                        code = Some(u8::try_from(exited.exit_code).unwrap_or(u8::MAX));
                    }
                    Some(_) => {}
                    None => return Err(lost("the engine ended the stream")),
                },
                Step::Answer(Err(error)) if error.is_lost() => return Err(lost(&error.to_string())),
                Step::Answer(Err(error)) => return Err(error),
                Step::Written(result) => self.written(result?),
                Step::Typed(result) => self.typed(&buffer[..result?]),
                Step::Room(open) => {
                    if self.send_input(open) {
                        return Ok(Outcome::Detached);
                    }
                }
                Step::Signal(signal) if self.tty => {
                    // Keys reach the process as bytes; a signal to us is for us.
                    return Err(Error::silent(exit::of_signal(signal)));
                }
                Step::Signal(signal) => self.send(Kind::Signal(signal.as_str().to_owned())),
                Step::Window => self.resize(),
            }
        }
    }

    /// Waits for whatever comes next. Every branch is cancel-safe.
    async fn next(&mut self, buffer: &mut [u8]) -> Step {
        let writing = self.pending.is_some();
        tokio::select! {
            biased;
            signal = self.signals.recv() => Step::Signal(signal),
            _ = self.window.recv() => Step::Window,
            result = write(&self.stdout, &self.stderr, self.pending.as_ref()), if writing => Step::Written(result),
            answer = self.answers.message(), if !writing => Step::Answer(answer.map_err(Error::from)),
            permit = self.requests.reserve(), if matches!(self.input, Input::Waiting(..)) => Step::Room(permit.is_ok()),
            result = self.stdin.read(buffer), if matches!(self.input, Input::Open) => Step::Typed(result),
        }
    }

    fn written(&mut self, length: usize) {
        if let Some((_, data)) = &mut self.pending {
            let _ = data.split_to(length.min(data.len()));
            if data.is_empty() {
                self.pending = None;
            }
        }
    }

    fn typed(&mut self, bytes: &[u8]) {
        let stdin = |bytes: &[u8]| Kind::Stdin(Bytes::copy_from_slice(bytes));
        self.input = match &mut self.detector {
            _ if bytes.is_empty() => Input::Waiting(Kind::StdinClosed(StdinClosed {}), After::Close),
            None => Input::Waiting(stdin(bytes), After::GoOn),
            Some(detector) => match detector.feed(bytes) {
                Typed::Bytes(bytes) if bytes.is_empty() => Input::Open,
                Typed::Bytes(bytes) => Input::Waiting(stdin(&bytes), After::GoOn),
                Typed::Detach(bytes) => Input::Waiting(stdin(&bytes), After::Leave),
            },
        };
    }

    /// Sends what was typed, now that there is room. Whether the user leaves.
    fn send_input(&mut self, open: bool) -> bool {
        let Input::Waiting(kind, after) = std::mem::replace(&mut self.input, Input::Closed) else {
            return false;
        };
        if open && after == After::GoOn {
            self.input = Input::Open;
        }
        self.send(kind);
        after == After::Leave
    }

    fn resize(&self) {
        if self.tty
            && let Some(size) = terminal::size()
        {
            self.send(Kind::Resize(size));
        }
    }

    fn send(&self, kind: Kind) {
        // A full channel means that the engine is busy with input, a closed
        // one that the process has ended.
        let _ = self.requests.try_send(RunExecRequest { kind: Some(kind) });
    }
}

fn lost(why: &str) -> Error {
    Error::session(format!("{why}; the process goes on: see berth exec ls"), BERTH_FAILED)
}
