// SPDX-License-Identifier: Apache-2.0
//! The container's standard input: one writer, any number of senders, no
//! buffer that grows.

use std::{os::fd::OwnedFd, rc::Rc};

use bytes::{Buf as _, Bytes};
use nix::errno::Errno;
use tokio::{io::unix::AsyncFd, sync::mpsc};

/// What is sent to the standard input.
#[derive(Debug)]
pub enum Input {
    /// Bytes to write.
    Bytes(Bytes),
    /// No more input from anybody. A terminal stays open: it is the
    /// container's output too.
    Close,
}

/// A way to the standard input. Sending waits while the container doesn't
/// read; it fails when nothing reads any more.
pub type Sender = mpsc::Sender<Input>;

/// Writes what is sent, until it is told to close or nobody reads.
pub async fn run(target: Rc<AsyncFd<OwnedFd>>, mut queue: mpsc::Receiver<Input>) {
    while let Some(Input::Bytes(bytes)) = queue.recv().await {
        if write_all(&target, bytes).await.is_err() {
            return;
        }
    }
}

async fn write_all(target: &AsyncFd<OwnedFd>, mut bytes: Bytes) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = target.writable().await?;
        match nix::unistd::write(target.get_ref(), &bytes) {
            Ok(count) => bytes.advance(count),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
