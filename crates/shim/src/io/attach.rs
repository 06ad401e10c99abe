// SPDX-License-Identifier: Apache-2.0
//! One attached client: the shim's side of [`berth::attach`].
//!
//! The container waits for no client that didn't ask for it, and for none that
//! takes nothing at all for [`STALL`]: what such a one misses it gets from the
//! log, or is told of.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    rc::Rc,
    time::Duration,
};

use berth::{
    api::shim::AttachOpen,
    attach::{self, Frame, Kind},
};
use bytes::BytesMut;
use prost::Message as _;
use tokio::{
    io::{AsyncWriteExt as _, unix::AsyncFd},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use super::{
    diag,
    input::{Input, Sender},
    output::{Output, Subscriber},
};
use crate::kernel::tty::{self, Size};

/// How long a subscriber with a full queue may take nothing.
pub const STALL: Duration = Duration::from_secs(10);

/// How long a client may take to say what it wants.
const OPEN: Duration = Duration::from_secs(10);

/// A client that has said what it wants.
#[derive(Debug)]
pub struct Client {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    buffer: BytesMut,
    open: AttachOpen,
}

impl Client {
    /// Waits for what a client wants, but not for long; `None` when it says
    /// nothing of sense.
    pub async fn accept(stream: UnixStream) -> Option<Self> {
        let (mut read, write) = stream.into_split();
        let mut buffer = BytesMut::new();
        let open = match timeout(OPEN, attach::read(&mut read, &mut buffer)).await {
            Ok(Ok(Some(Frame { kind: Kind::Open, payload }))) => AttachOpen::decode(payload).ok(),
            _ => None,
        };
        if open.is_none() {
            diag::warn(format_args!("attach: a client that didn't begin with Open was dropped"));
        }
        Some(Self { read, write, buffer, open: open? })
    }

    /// The process that it wants; empty for the container's first.
    #[must_use]
    pub fn exec_id(&self) -> &str {
        &self.open.exec_id
    }

    /// Tells it why it is dropped.
    pub async fn refuse(mut self, why: &str) {
        let mut wire = BytesMut::new();
        attach::encode(&mut wire, Kind::Error, &why.as_bytes()[..why.len().min(attach::MAX_PAYLOAD)]);
        // Best effort: it may have gone.
        let _ = timeout(OPEN, self.write.write_all(&wire)).await;
    }
}

/// A terminal, once there is one, and the size that it has or will have.
#[derive(Debug)]
pub struct Terminal {
    console: RefCell<Option<Rc<AsyncFd<OwnedFd>>>>,
    size: Cell<Option<Size>>,
}

impl Terminal {
    /// A terminal to be; none without a size.
    #[must_use]
    pub fn new(size: Option<Size>) -> Self {
        Self { console: RefCell::default(), size: Cell::new(size) }
    }

    /// The size that was asked for last; `None` where there is no terminal.
    #[must_use]
    pub fn size(&self) -> Option<Size> {
        self.size.get()
    }

    /// Here it is; or it isn't any more.
    pub fn set(&self, console: Option<Rc<AsyncFd<OwnedFd>>>) {
        *self.console.borrow_mut() = console;
    }

    /// Changes its size; nothing without a terminal.
    pub fn resize(&self, size: Size) {
        if self.size.get().is_some() {
            self.size.set(Some(size));
        }
        if let Some(console) = &*self.console.borrow()
            && let Err(e) = tty::resize(console.get_ref(), size)
        {
            diag::warn(format_args!("resize the terminal: {e}"));
        }
    }
}

/// What a client can reach.
#[derive(Debug, Clone)]
pub struct Attachable {
    /// The container's output.
    pub output: Rc<Output>,
    /// Its standard input; `None` where it has none.
    pub input: Option<Sender>,
    /// Its terminal.
    pub terminal: Rc<Terminal>,
    /// Close the standard input when a client that could write leaves, unless
    /// it may come back; never a terminal's.
    pub stdin_once: bool,
}

/// Serves one client until it leaves or the output has ended. From this call
/// on, not from the first poll, it misses nothing. Whether it left before.
pub fn serve(client: Client, target: Attachable) -> impl Future<Output = Left> {
    let subscriber =
        target.output.attach([client.open.stdout, client.open.stderr], client.open.wait, client.open.mark);
    serve_subscriber(client, target, subscriber)
}

/// How a client's connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// There was nothing more to come.
    AtTheEnd,
    /// It has gone, or was dropped, before.
    Early,
}

async fn serve_subscriber(client: Client, target: Attachable, subscriber: Rc<Subscriber>) -> Left {
    let Client { mut read, mut write, mut buffer, open } = client;
    let input = target.input.clone().filter(|_| open.stdin);
    let mut lost = false;
    tokio::select! {
        () = write_output(&mut write, &target.output, &subscriber) => {}
        result = read_input(&mut read, &mut buffer, input.as_ref(), &target.terminal) => {
            lost = result.is_ok();
            if let Err(e) = result {
                subscriber.queue.borrow_mut().refuse(&e.to_string());
                target.output.drained();
                // Best effort: it has broken the protocol.
                let _ = timeout(OPEN, write_output(&mut write, &target.output, &subscriber)).await;
            }
        }
    }
    let left = if subscriber.queue.borrow().is_finished() { Left::AtTheEnd } else { Left::Early };
    target.output.unsubscribe(&subscriber);
    let may_return = lost && open.keep_stdin;
    if let Some(input) = input.filter(|_| target.stdin_once && !may_return) {
        // Fails when nothing reads the standard input any more: then it's closed.
        let _ = input.send(Input::Close).await;
    }
    left
}

/// Takes a client's frames until it leaves.
async fn read_input(
    read: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    input: Option<&Sender>,
    terminal: &Terminal,
) -> io::Result<()> {
    while let Some(frame) = attach::read(read, buffer).await? {
        let message = match frame.kind {
            Kind::Stdin => Input::Bytes(frame.payload),
            Kind::StdinClosed => Input::Close,
            Kind::Resize => {
                if let Some(size) = size(&frame.payload) {
                    terminal.resize(size);
                }
                continue;
            }
            kind => return Err(io::Error::other(format!("unexpected {kind:?} frame"))),
        };
        if let Some(input) = input {
            // A container that reads no more input loses it, as in a pipe.
            let _ = input.send(message).await;
        }
        if buffer.is_empty() {
            *buffer = BytesMut::new();
        }
    }
    Ok(())
}

fn size(payload: &[u8]) -> Option<Size> {
    let &[a, b, c, d] = payload else { return None };
    Some(Size { rows: u16::from_be_bytes([a, b]), columns: u16::from_be_bytes([c, d]) })
}

/// Writes a client's queue until the output has ended or the client is gone.
async fn write_output(write: &mut OwnedWriteHalf, output: &Output, subscriber: &Subscriber) {
    loop {
        if subscriber.queue.borrow().front().is_empty() {
            if subscriber.is_behind() {
                output.catch_up(subscriber);
                tokio::task::yield_now().await;
                continue;
            }
            if subscriber.queue.borrow().is_finished() {
                return;
            }
            subscriber.filled.notified().await;
            continue;
        }
        match timeout(STALL, write.writable()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                if subscriber.give_up() {
                    output.drained();
                }
                continue;
            }
        }
        if write_front(write, subscriber).is_err() {
            return;
        }
        output.drained();
        tokio::task::consume_budget().await;
    }
}

fn write_front(write: &OwnedWriteHalf, subscriber: &Subscriber) -> io::Result<()> {
    let mut queue = subscriber.queue.borrow_mut();
    match write.try_write(queue.front()) {
        Ok(count) => queue.taken(count),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        Err(e) => return Err(e),
    }
    Ok(())
}
