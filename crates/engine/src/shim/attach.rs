// SPDX-License-Identifier: Apache-2.0
//! The client's side of a shim's attach socket.

use std::{io, os::fd::BorrowedFd};

use berth::{
    api::shim::AttachOpen,
    attach::{self, Frame, Kind as FrameKind},
    bundle,
};
use bytes::BytesMut;
use prost::Message as _;
use tokio::{
    io::AsyncWriteExt as _,
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
};

use super::{task, timeouts};
use crate::error::{Context as _, Error, Kind, Result};

/// What comes from the container.
#[derive(Debug)]
pub struct Output {
    stream: OwnedReadHalf,
    buffer: BytesMut,
}

/// What goes to it.
#[derive(Debug)]
pub struct Input {
    stream: OwnedWriteHalf,
    wire: BytesMut,
}

/// Subscribes: when this returns no byte of output is missed any more.
///
/// # Errors
/// `Unavailable` when the shim doesn't answer in time.
pub async fn open(bundle: BorrowedFd<'_>, wanted: AttachOpen) -> Result<(Input, Output)> {
    open_marked(bundle, wanted).await.map(|(input, output, _)| (input, output))
}

/// As [`open`]; with where in the log that is, segment and offset, when it was
/// asked for and there is a log.
///
/// # Errors
/// As [`open`].
pub async fn open_marked(
    bundle: BorrowedFd<'_>,
    wanted: AttachOpen,
) -> Result<(Input, Output, Option<(u64, u64)>)> {
    let stream = task::connect(bundle, bundle::ATTACH_SOCKET).await.map_err(unavailable)?;
    let (read, write) = stream.into_split();
    let mut input = Input { stream: write, wire: BytesMut::new() };
    let mut output = Output { stream: read, buffer: BytesMut::new() };
    let greeting = async {
        input.send(FrameKind::Open, &wanted.encode_to_vec()).await?;
        match output.next().await? {
            Some(Frame { kind: FrameKind::Attached, payload }) => Ok(place(&payload)),
            Some(Frame { kind: FrameKind::Error, payload }) => {
                Err(io::Error::other(String::from_utf8_lossy(&payload).into_owned()))
            }
            Some(frame) => Err(io::Error::other(format!("unexpected frame {:?}", frame.kind))),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    let place = tokio::time::timeout(timeouts::CONNECT, greeting)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(unavailable)?;
    Ok((input, output, place))
}

fn place(attached: &[u8]) -> Option<(u64, u64)> {
    let (segment, offset) = attached.get(1..)?.split_first_chunk()?;
    Some((u64::from_be_bytes(*segment), u64::from_be_bytes(offset.try_into().ok()?)))
}

fn unavailable(e: io::Error) -> Error {
    Error::new(Kind::Unavailable, "attach to the container").with_source(e)
}

impl Output {
    /// The next frame; `None` at the end of the container's output.
    ///
    /// # Errors
    /// Those of the connection. Cancel-safe.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        attach::read(&mut self.stream, &mut self.buffer).await
    }
}

impl Input {
    /// Sends bytes to the container's stdin.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn stdin(&mut self, bytes: &[u8]) -> Result<()> {
        for chunk in bytes.chunks(attach::MAX_PAYLOAD) {
            self.send(FrameKind::Stdin, chunk).await.context("write to the container")?;
        }
        Ok(())
    }

    /// No more input.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn close_stdin(&mut self) -> Result<()> {
        self.send(FrameKind::StdinClosed, &[]).await.context("close the container's input")
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        let [[a, b], [c, d]] = [rows.to_be_bytes(), columns.to_be_bytes()];
        self.send(FrameKind::Resize, &[a, b, c, d]).await.context("resize the container's terminal")
    }

    async fn send(&mut self, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
        self.wire.clear();
        attach::encode(&mut self.wire, kind, payload);
        self.stream.write_all(&self.wire).await
    }
}
