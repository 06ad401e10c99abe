// SPDX-License-Identifier: Apache-2.0
//! The engine's side of a process that works on a container's files
//! (`berth::files`): it is started here, asked once, and killed when nobody
//! waits for it any more.

use std::{ffi::CString, fs::File, io, os::fd::AsFd as _, os::fd::BorrowedFd, sync::Arc};

use berth::{
    api::shim::{FileStat, FilesError, FilesRequest},
    files::{self, Frame, Kind as FrameKind},
};
use bytes::Bytes;
use prost::Message as _;
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{manager::Manager, process::Process};
use crate::{
    error::{Context as _, Error, Kind, Result},
    kernel::{pidfd, spawn},
};

/// What such a process answers instead of doing it.
#[derive(Debug)]
pub enum Failure {
    /// In its own words.
    Refused(FilesError),
    /// It, or the way to it, failed.
    Broken(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Broken(Error::new(Kind::Internal, "work on the container's files").with_source(error))
    }
}

/// A process at work. Dropping both halves ends it.
#[derive(Debug)]
pub struct Answers {
    socket: OwnedReadHalf,
    process: Arc<Running>,
}

/// What it is given to work with.
#[derive(Debug)]
pub struct Feed {
    socket: OwnedWriteHalf,
    _process: Arc<Running>,
}

/// The process itself: killed, and reaped, when nobody holds it.
#[derive(Debug)]
pub struct Running(Option<Process>);

impl Running {
    /// Ends it at once. One that has ended is fine.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn kill(&self) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), Process::kill)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(process) = self.0.take() else { return };
        let end = async move {
            let ended = match process.kill() {
                Ok(()) => process.ended().await,
                failed => failed,
            };
            if let Err(e) = ended {
                tracing::warn!(error = e.chain(), "end a process that worked on a container's files");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(end)),
            // The engine is ending: so does the socket, and with it the process.
            Err(_) => tracing::debug!("left a process that worked on a container's files to itself"),
        }
    }
}

impl Manager {
    /// Starts a process that works on files and gives it its request.
    /// `target` is what it inherits as `berth::files::TARGET_FD`.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn files(&self, target: BorrowedFd<'_>, request: &FilesRequest) -> Result<(Answers, Feed)> {
        let (ours, theirs) = UnixStream::pair().context("make a socket pair")?;
        let theirs = theirs.into_std().context("hand over a socket")?;
        theirs.set_nonblocking(false).context("hand over a socket")?;
        let args = ["berth-shim", files::FILES].map(|arg| CString::new(arg).unwrap_or_default());
        let root = File::open("/").context("open /")?;
        let errors = io::stderr();
        let process = {
            let fds = [self.null(), self.null(), errors.as_fd(), theirs.as_fd(), target];
            let program = spawn::Program {
                executable: self.program(),
                args: &args,
                env: &[],
                cwd: root.as_fd(),
                fds: &fds,
            };
            let pid = spawn::spawn(&program).context("execute a process for the container's files")?;
            // Our child, not reaped yet: the pid is its own until we reap it.
            let pidfd = pidfd::open(pid).context("open a process")?;
            let identity = pidfd::identify(pidfd.as_fd(), pid).context("identify a process")?;
            Process::new(identity, pidfd)?
        };
        drop(theirs);
        let running = Arc::new(Running(Some(process)));
        let (read, write) = ours.into_split();
        let mut feed = Feed { socket: write, _process: Arc::clone(&running) };
        feed.send(FrameKind::Request, &request.encode_to_vec()).await.context("ask for files")?;
        Ok((Answers { socket: read, process: running }, feed))
    }
}

impl Answers {
    /// The process, to be killed by somebody else.
    #[must_use]
    pub fn process(&self) -> Arc<Running> {
        Arc::clone(&self.process)
    }

    /// What was found.
    ///
    /// # Errors
    /// What the process refuses.
    pub async fn stat(&mut self) -> Result<FileStat, Failure> {
        let frame = self.next().await?;
        match frame.kind {
            FrameKind::Stat => Ok(FileStat::decode(frame.payload).map_err(io::Error::from)?),
            kind => Err(unexpected(kind)),
        }
    }

    /// The next piece of an archive; `None` at its end.
    ///
    /// # Errors
    /// What the process refuses.
    pub async fn data(&mut self) -> Result<Option<Bytes>, Failure> {
        let frame = self.next().await?;
        match frame.kind {
            FrameKind::Data => Ok(Some(frame.payload)),
            FrameKind::End => Ok(None),
            kind => Err(unexpected(kind)),
        }
    }

    /// Waits until the work is done.
    ///
    /// # Errors
    /// What the process refuses.
    pub async fn done(&mut self) -> Result<(), Failure> {
        match self.next().await?.kind {
            FrameKind::End => Ok(()),
            kind => Err(unexpected(kind)),
        }
    }

    async fn next(&mut self) -> Result<Frame, Failure> {
        let frame = files::receive(&mut self.socket).await?;
        if frame.kind == FrameKind::Error {
            return Err(Failure::Refused(FilesError::decode(frame.payload).map_err(io::Error::from)?));
        }
        Ok(frame)
    }
}

impl Feed {
    /// Sends a piece of an archive, of any size.
    ///
    /// # Errors
    /// Those of the socket: the process has given up, and its answer says why.
    pub async fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(files::MAX_PAYLOAD) {
            self.send(FrameKind::Data, piece).await?;
        }
        Ok(())
    }

    /// Says that the archive is complete.
    ///
    /// # Errors
    /// Those of the socket, as of [`Feed::data`].
    pub async fn end(&mut self) -> io::Result<()> {
        self.send(FrameKind::End, b"").await
    }

    async fn send(&mut self, kind: FrameKind, payload: &[u8]) -> io::Result<()> {
        self.socket.write_all(&files::encode(kind, payload)?).await
    }
}

fn unexpected(kind: FrameKind) -> Failure {
    Failure::Broken(Error::new(
        Kind::Internal,
        format!("unexpected answer {kind:?} about the container's files"),
    ))
}
