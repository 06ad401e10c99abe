// SPDX-License-Identifier: Apache-2.0
//! One attached client: the shim's side of [`berth::attach`].
//!
//! A client that doesn't read makes the container wait, as a pipe would; one
//! that takes nothing at all for [`STALL`] is dropped and told so.

use std::{io, os::fd::OwnedFd, rc::Rc, time::Duration};

use berth::{
    api::shim::AttachOpen,
    attach::{self, Frame, Kind},
};
use bytes::BytesMut;
use prost::Message as _;
use tokio::{
    io::unix::AsyncFd,
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

/// What a client can reach.
#[derive(Debug, Clone)]
pub struct Attachable {
    /// The container's output.
    pub output: Rc<Output>,
    /// Its standard input; `None` where it has none.
    pub input: Option<Sender>,
    /// Its terminal.
    pub console: Option<Rc<AsyncFd<OwnedFd>>>,
    /// Close the standard input when a client that could write leaves; never a
    /// terminal's.
    pub stdin_once: bool,
}

/// Serves one client until it leaves or the output has ended.
pub async fn serve(stream: UnixStream, target: Attachable) {
    let (mut read, mut write) = stream.into_split();
    let mut buffer = BytesMut::new();
    let open = match timeout(OPEN, attach::read(&mut read, &mut buffer)).await {
        Ok(Ok(Some(Frame { kind: Kind::Open, payload }))) => AttachOpen::decode(payload).ok(),
        _ => None,
    };
    let Some(open) = open else {
        return diag::warn(format_args!("attach: a client that didn't begin with Open was dropped"));
    };
    let subscriber = target.output.attach([open.stdout, open.stderr]);
    let input = target.input.clone().filter(|_| open.stdin);
    tokio::select! {
        () = write_output(&mut write, &target.output, &subscriber) => {}
        result = read_input(&mut read, &mut buffer, input.as_ref(), target.console.as_deref()) => {
            if let Err(e) = result {
                subscriber.queue.borrow_mut().give_up(&e.to_string());
                target.output.drained();
                // Best effort: it has broken the protocol.
                let _ = timeout(OPEN, write_output(&mut write, &target.output, &subscriber)).await;
            }
        }
    }
    target.output.unsubscribe(&subscriber);
    if let Some(input) = input.filter(|_| target.stdin_once) {
        // Fails when nothing reads the standard input any more: then it's closed.
        let _ = input.send(Input::Close).await;
    }
}

/// Takes a client's frames until it leaves.
async fn read_input(
    read: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
    input: Option<&Sender>,
    console: Option<&AsyncFd<OwnedFd>>,
) -> io::Result<()> {
    while let Some(frame) = attach::read(read, buffer).await? {
        let message = match frame.kind {
            Kind::Stdin => Input::Bytes(frame.payload),
            Kind::StdinClosed => Input::Close,
            Kind::Resize => {
                if let (Some(console), Some(size)) = (console, size(&frame.payload)) {
                    resize(console, size);
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

/// Changes the size of the container's terminal.
pub fn resize(console: &AsyncFd<OwnedFd>, size: Size) {
    if let Err(e) = tty::resize(console.get_ref(), size) {
        diag::warn(format_args!("resize the terminal: {e}"));
    }
}

/// Writes a client's queue until the output has ended or the client is gone.
async fn write_output(write: &mut OwnedWriteHalf, output: &Output, subscriber: &Subscriber) {
    loop {
        if subscriber.queue.borrow().front().is_empty() {
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
                if subscriber.give_up("the client took no output for 10 seconds") {
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
