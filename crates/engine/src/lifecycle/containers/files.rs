// SPDX-License-Identifier: Apache-2.0
//! A container's files: looked at, copied out of it and into it, exported.
//!
//! The work is done by a process of its own (`shim::files`) inside the
//! container's mount namespace, or with its layers mounted when it doesn't
//! run. A lock on the layers keeps the two apart, across engines: the process
//! inherits it, and the kernel lets go of it with the process.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    sync::Arc,
};

use berth::api::shim::{
    FileStat, FilesBind, FilesError, FilesIds, FilesRequest, FilesRoot, ReadPath, StatPath, WritePath,
    files_request::Work, write_path::What,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::mpsc;

use super::{Containers, Entry, Phase, signal};
use crate::{
    domain::{
        container::{Document, MountKind},
        record::Record,
        spec::EtcFiles,
        state::Status,
    },
    error::{Context as _, Error, Kind, Result},
    kernel::fs::{self, Lock},
    shim::{
        files::{Answers, Failure, Feed},
        timeouts,
    },
};

/// Pieces of an archive on their way to a client.
const QUEUE: usize = 4;
/// Before a lock that somebody has is tried again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(10);

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathStat {
    /// Last component of the path that was asked for; `/` for the root.
    pub name: Vec<u8>,
    /// As in stat(2): type and permissions.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub modified: (i64, i32),
    /// Of a symbolic link.
    pub link_target: Vec<u8>,
}

/// What is copied into a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// An archive, as it is.
    Archive,
    /// One file.
    File,
    /// A directory with its name.
    Directory,
    /// What is in a directory.
    Contents,
}

/// Where to, and how.
#[derive(Debug, Clone)]
pub struct CopyInto {
    /// In the container.
    pub path: Vec<u8>,
    /// What comes.
    pub what: Copied,
    /// Owners are the archive's; else root.
    pub keep_owner: bool,
}

impl Containers {
    /// What is at `path` in a container.
    ///
    /// # Errors
    /// `NotFound`, in Docker's words.
    pub async fn stat_path(
        self: &Arc<Self>,
        record: &Record,
        path: Vec<u8>,
        follow: bool,
    ) -> Result<PathStat> {
        let asked = StatPath { path: path.clone(), follow };
        let (mut answers, _feed) = self.files(record, Work::Stat(asked)).await?;
        let found = answers.stat().await.map_err(|e| explain(e, record, &path))?;
        answers.done().await.map_err(|e| explain(e, record, &path))?;
        Ok(stat(found))
    }

    /// A tar archive of what is at `path`. Dropping it ends the copy.
    ///
    /// # Errors
    /// `NotFound`, in Docker's words; what happens later comes in the stream.
    pub async fn copy_from(
        self: &Arc<Self>,
        record: &Record,
        path: Vec<u8>,
        follow: bool,
    ) -> Result<(PathStat, mpsc::Receiver<Result<Bytes>>)> {
        let asked = ReadPath { path: path.clone(), follow, export: false };
        let (mut answers, feed) = self.files(record, Work::Read(asked)).await?;
        let found = answers.stat().await.map_err(|e| explain(e, record, &path))?;
        Ok((stat(found), relay(answers, feed, record, path)))
    }

    /// A tar archive of the whole root file system, without what is mounted
    /// in it. Dropping it ends the export.
    ///
    /// # Errors
    /// Those of [`Containers::copy_from`].
    pub async fn export(self: &Arc<Self>, record: &Record) -> Result<mpsc::Receiver<Result<Bytes>>> {
        let asked = ReadPath { path: b"/".to_vec(), follow: true, export: true };
        let (answers, feed) = self.files(record, Work::Read(asked)).await?;
        Ok(relay(answers, feed, record, b"/".to_vec()))
    }

    /// Unpacks an archive in a container; returns when all of it is in place.
    /// An archive that ends with an error is broken off where it is.
    ///
    /// # Errors
    /// `NotFound` and `InvalidArgument`, in Docker's words.
    pub async fn copy_into(
        self: &Arc<Self>,
        record: &Record,
        into: CopyInto,
        archive: impl Stream<Item = Result<Bytes>> + Send,
    ) -> Result<()> {
        let what = match into.what {
            Copied::Archive => What::Archive,
            Copied::File => What::File,
            Copied::Directory => What::Directory,
            Copied::Contents => What::Contents,
        };
        let path = into.path;
        let asked = WritePath { path: path.clone(), what: what.into(), keep_owner: into.keep_owner };
        let (mut answers, mut feed) = self.files(record, Work::Write(asked)).await?;
        let sent = async {
            let mut archive = std::pin::pin!(archive);
            while let Some(piece) = archive.next().await {
                if feed.data(&piece?).await.is_err() {
                    // It has given up, and says why.
                    return Ok(());
                }
            }
            drop(feed.end().await);
            Ok::<_, Error>(())
        };
        let answer = async { answers.done().await };
        let mut sent = std::pin::pin!(sent);
        let mut answer = std::pin::pin!(answer);
        let done = tokio::select! {
            // Early: a refusal.
            done = &mut answer => done,
            sent = &mut sent => {
                sent?;
                answer.await
            }
        };
        done.map_err(|e| explain(e, record, &path))
    }

    /// Starts a process that does `work` on the container's files.
    async fn files(self: &Arc<Self>, record: &Record, work: Work) -> Result<(Answers, Feed)> {
        let entry = self.entry(&record.id);
        loop {
            let live = match entry.view().phase {
                Phase::Running(live) => live,
                Phase::Removed => return Err(gone(record)),
                _ => {
                    let _gate = entry.gate.lock().await;
                    if matches!(entry.view().phase, Phase::Running(_)) {
                        continue;
                    }
                    return self.files_at_rest(&entry, record, work).await;
                }
            };
            let Some(init) = live.init.get() else { return Err(signal::unreachable(record)) };
            let (this, id) = (Arc::clone(self), record.id.clone());
            let document = this.blocking(move |this| this.read_document(&id)).await?;
            let join_users = !document.effective.id_maps.is_empty();
            let request = FilesRequest { root: None, join_users, work: Some(work) };
            return self.shims.files(init.pidfd(), &request).await;
        }
    }

    /// The same of a container that doesn't run; the gate is held.
    async fn files_at_rest(
        self: &Arc<Self>,
        entry: &Arc<Entry>,
        record: &Record,
        work: Work,
    ) -> Result<(Answers, Feed)> {
        let record = self.reload(record).await?.ok_or_else(|| gone(record))?;
        match record.status {
            Status::Created | Status::Exited => {}
            Status::Running | Status::Starting => return Err(signal::unreachable(&record)),
            Status::Creating | Status::Removing => return Err(gone(&record)),
        }
        let writes = matches!(work, Work::Write(_));
        let lock = self.lock_layers(&record, if writes { Lock::Exclusive } else { Lock::Shared }).await?;
        let row = record.clone();
        let root = self.blocking(move |this| this.layers(&row, writes)).await?;
        let request = FilesRequest { root: Some(root), join_users: false, work: Some(work) };
        let (answers, feed) = self.shims.files(lock.as_fd(), &request).await?;
        entry.copying(&answers.process());
        Ok((answers, feed))
    }

    /// The container's own layer is nobody else's to change while the result,
    /// or a process that inherits it, lives. The gate is held.
    ///
    /// # Errors
    /// `Unavailable` when somebody else is at work on it for too long.
    pub(super) async fn lock_layers(self: &Arc<Self>, record: &Record, lock: Lock) -> Result<OwnedFd> {
        let id = record.id.clone();
        let layer = self.blocking(move |this| this.snapshots.lockable(id.as_str())).await?;
        let deadline = tokio::time::Instant::now() + timeouts::COPIES;
        while !fs::try_lock(layer.as_fd(), lock).context("lock the container's layer")? {
            if tokio::time::Instant::now() >= deadline {
                let what = format!("files of container {} are being copied; try again later", record.name);
                return Err(Error::new(Kind::Unavailable, what));
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(layer)
    }

    /// What to mount of a container that doesn't run. Blocks.
    fn layers(&self, record: &Record, writes: bool) -> Result<FilesRoot> {
        let document = self.read_document(&record.id)?;
        let rootfs = self.snapshots.rootfs(record.id.as_str())?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let lower = rootfs.lower.iter().map(|path| text(path)).collect();
        // Without it only read: several may, at once.
        let work = if writes { text(&rootfs.work) } else { String::new() };
        let ids = document.effective.id_maps.iter();
        let ids = ids.map(|map| FilesIds { container: map.container, host: map.host, size: map.size });
        let etc = EtcFiles::within(&self.directory(&record.namespace, &record.id));
        let read_only = document.config.host.readonly_rootfs;
        Ok(FilesRoot {
            lower,
            upper: text(&rootfs.upper),
            work,
            read_only,
            binds: binds(&document, &etc),
            ids: ids.collect(),
        })
    }
}

/// What of the host's is mounted in it, in the order in which a start has it.
fn binds(document: &Document, etc: &EtcFiles) -> Vec<FilesBind> {
    let own = [
        ("/etc/hostname", &etc.hostname),
        ("/etc/hosts", &etc.hosts),
        ("/etc/resolv.conf", &etc.resolv_conf),
    ];
    let own = own.into_iter().map(|(target, source)| FilesBind {
        source: source.to_string_lossy().into_owned(),
        target: target.to_owned(),
        read_only: false,
    });
    let asked = document.config.host.mounts.iter().filter(|mount| mount.kind == MountKind::Bind);
    let asked = asked.map(|mount| FilesBind {
        source: mount.source.clone(),
        target: mount.target.clone(),
        read_only: mount.read_only,
    });
    own.chain(asked).collect()
}

/// Passes an archive on, for as long as somebody wants it.
fn relay(mut answers: Answers, feed: Feed, record: &Record, path: Vec<u8>) -> mpsc::Receiver<Result<Bytes>> {
    let (pieces, receiver) = mpsc::channel(QUEUE);
    let record = record.clone();
    tokio::spawn(async move {
        let _feed = feed;
        loop {
            let piece = match answers.data().await {
                Ok(None) => return,
                Ok(Some(piece)) => Ok(piece),
                Err(e) => Err(explain(e, &record, &path)),
            };
            let last = piece.is_err();
            if pieces.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    receiver
}

fn stat(found: FileStat) -> PathStat {
    let modified = found.modified.unwrap_or_default();
    PathStat {
        name: found.name,
        mode: found.mode,
        size: found.size,
        modified: (modified.seconds, modified.nanos),
        link_target: found.link_target,
    }
}

fn gone(record: &Record) -> Error {
    Error::new(Kind::NotFound, format!("No such container: {}", record.id))
}

/// Docker's words for what the process says.
fn explain(failure: Failure, record: &Record, path: &[u8]) -> Error {
    let FilesError { errno, message, root_read_only } = match failure {
        Failure::Broken(error) => return error,
        Failure::Refused(refused) => refused,
    };
    let path = String::from_utf8_lossy(path);
    match errno {
        0 => Error::new(Kind::InvalidArgument, message),
        libc::ENOENT => {
            let what = format!("Could not find the file {path} in container {}", record.name);
            Error::new(Kind::NotFound, what)
        }
        libc::EROFS if root_read_only => {
            Error::new(Kind::FailedPrecondition, "container rootfs is marked read-only")
        }
        libc::EROFS => Error::new(Kind::FailedPrecondition, "mounted volume is marked read-only"),
        libc::ENOSPC | libc::EDQUOT => Error::new(Kind::ResourceExhausted, message),
        libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG | libc::EXDEV => {
            Error::new(Kind::InvalidArgument, message)
        }
        libc::EPERM | libc::EACCES => Error::new(Kind::PermissionDenied, message),
        _ => Error::new(Kind::Internal, message),
    }
}
