// SPDX-License-Identifier: Apache-2.0
//! Standard streams as containerd passes them: named pipes that its client
//! reads and writes.
//!
//! A client may vanish and another may come: the shim holds both ends of each
//! pipe, so that neither is ever broken. Output that nobody takes for
//! [`STALL`] passes by until somebody reads again; for as long a pipe that has
//! all of it waits for a reader who is yet to come.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::Path,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::{
    io::unix::AsyncFd,
    task::spawn_local,
    time::{Instant, sleep, timeout},
};

use super::{
    attach::STALL,
    diag,
    input::{Input, Sender},
    output::{Output, Subscriber},
};
use crate::kernel::watch::watch;

/// Bytes of one read from a client.
const READ: usize = 16 * 1024;
/// How often a pipe that has all of an output is looked at for a reader.
const GLANCE: Duration = Duration::from_millis(10);

/// The standard input's pipe.
#[derive(Debug)]
pub struct StdinFifo {
    reader: AsyncFd<OwnedFd>,
}

/// Keeps a pipe from ending while no client has it open; dropped to end it.
#[derive(Debug)]
pub struct KeepOpen {
    _writer: File,
}

/// Opens the pipe at `path` for reading.
///
/// # Errors
/// Those of open(2).
pub fn open_stdin(path: &Path) -> io::Result<(StdinFifo, KeepOpen)> {
    let (reader, writer) = both_ends(path)?;
    Ok((StdinFifo { reader: watch(reader.into())? }, KeepOpen { _writer: writer }))
}

/// The pipe of an output.
#[derive(Debug)]
pub struct OutputFifo {
    writer: AsyncFd<OwnedFd>,
    /// So that the pipe isn't broken while no client has it open.
    reader: File,
}

/// Opens the pipe at `path` for writing, whether or not anybody reads.
///
/// # Errors
/// Those of open(2).
pub fn open_output(path: &Path) -> io::Result<OutputFifo> {
    let (reader, writer) = both_ends(path)?;
    Ok(OutputFifo { writer: watch(writer.into())?, reader })
}

fn both_ends(path: &Path) -> io::Result<(File, File)> {
    let flags = OFlag::O_NONBLOCK.bits();
    let reader = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // There is a reader now, so this doesn't fail with ENXIO.
    let writer = OpenOptions::new().write(true).custom_flags(flags).open(path)?;
    Ok((reader, writer))
}

/// Hands a client's input on until the pipe ends.
pub async fn read_stdin(fifo: StdinFifo, input: Sender) {
    let mut buffer = vec![0; READ];
    loop {
        let Ok(mut ready) = fifo.reader.readable().await else { return };
        match nix::unistd::read(fifo.reader.get_ref(), &mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                let bytes = Bytes::copy_from_slice(&buffer[..count]);
                if input.send(Input::Bytes(bytes)).await.is_err() {
                    return;
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(e) => {
                diag::warn(format_args!("read stdin: {e}"));
                break;
            }
        }
    }
    // Fails when the container has closed its side first.
    let _ = input.send(Input::Close).await;
}

/// Writes a subscriber's queue into the pipe until the output has ended.
pub async fn write_output(fifo: OutputFifo, output: Rc<Output>, subscriber: Rc<Subscriber>) {
    loop {
        if subscriber.queue.borrow().is_finished() {
            break;
        }
        let stalled = subscriber.queue.borrow().is_stalled();
        if !stalled && subscriber.queue.borrow().front().is_empty() {
            subscriber.filled.notified().await;
            continue;
        }
        if stalled {
            // Until somebody reads, or the output ends.
            tokio::select! {
                ready = fifo.writer.writable() => if ready.is_err() { break },
                () = output.ended() => break,
            }
            subscriber.queue.borrow_mut().resume();
            continue;
        }
        let mut ready = match timeout(STALL, fifo.writer.writable()).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(_)) => break,
            Err(_) => {
                if subscriber.give_up() {
                    diag::warn(format_args!("nobody reads the container's output; it passes by"));
                    output.drained();
                }
                continue;
            }
        };
        match write_front(fifo.writer.get_ref(), &subscriber) {
            Ok(()) => output.drained(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => ready.clear_ready(),
            Err(e) => {
                diag::warn(format_args!("write output: {e}"));
                break;
            }
        }
        tokio::task::consume_budget().await;
    }
    output.unsubscribe(&subscriber);
    // The shim doesn't wait for it: whoever deletes a task has read its output.
    drop(spawn_local(end(fifo)));
}

/// Closes the pipe, once somebody has opened it who will find what is in it, and
/// its end: a client may be slower to open it than a container to end.
async fn end(OutputFifo { writer, reader }: OutputFifo) {
    drop(reader);
    let deadline = Instant::now() + STALL;
    // A pipe tells nobody that a reader has come.
    while is_unread(writer.get_ref()) && Instant::now() < deadline {
        sleep(GLANCE).await;
    }
}

/// Whether nobody has the pipe open for reading.
fn is_unread(writer: &OwnedFd) -> bool {
    let mut pipe = [PollFd::new(writer.as_fd(), PollFlags::empty())];
    let polled = poll(&mut pipe, PollTimeout::ZERO);
    polled.is_ok() && pipe[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

fn write_front(fifo: &OwnedFd, subscriber: &Subscriber) -> nix::Result<()> {
    let mut queue = subscriber.queue.borrow_mut();
    let count = nix::unistd::write(fifo, queue.front())?;
    queue.taken(count);
    Ok(())
}
