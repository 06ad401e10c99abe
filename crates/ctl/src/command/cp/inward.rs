// SPDX-License-Identifier: Apache-2.0
//! Into a container.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use berth::api::v1::{CopyToRequest, StatPathRequest, copy_to_request};
use berth_files::{
    kernel::paths,
    pack::{Mounts, Packer},
    tar,
};
use bytes::Bytes;
use copy_to_request::{Kind, Open, What};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::Code;

use super::super::pipe::{self, Sink};
use crate::{
    cli::files::Cp,
    context::Context,
    error::{Error, Result},
};

/// Read from stdin at once.
const PIECE: usize = 128 << 10;
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

/// An archive as it comes from stdin; how many bytes there were.
pub(super) async fn from_stdin(context: &Context, container: String, path: String) -> Result<u64> {
    let asked = StatPathRequest {
        namespace: context.namespace.clone(),
        container: container.clone(),
        path: path.clone().into(),
        follow: true,
    };
    let found = context.client.containers().stat_path(asked).await?.into_inner().stat.unwrap_or_default();
    if found.mode & TYPE != DIRECTORY {
        return Err(Error::new(format!("destination \"{container}:{path}\" must be a directory")));
    }
    let open = open(context, container, path, What::Archive, true);
    send(context, open, |queue| {
        let mut stdin = io::stdin().lock();
        loop {
            let mut piece = vec![0; PIECE];
            match stdin.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    piece.truncate(read);
                    if queue.blocking_send(piece.into()).is_err() {
                        return Ok(());
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Error::io("read standard input", &e)),
            }
        }
    })
    .await
}

/// A file or directory of this machine; how many bytes its archive has.
pub(super) async fn from_path(
    context: &Context,
    from: &str,
    container: String,
    path: String,
    args: &Cp,
) -> Result<u64> {
    let source = Source::look(from, args.follow_link)?;
    let open = open(context, container, path, source.what, args.archive);
    send(context, open, move |queue| source.pack(queue)).await
}

fn open(context: &Context, container: String, path: String, what: What, keep_owner: bool) -> Open {
    Open { namespace: context.namespace.clone(), container, path: path.into(), what: what.into(), keep_owner }
}

/// Sends what `make` puts into the queue. An archive that it can't finish is
/// broken off: the engine never takes a part for the whole.
async fn send(
    context: &Context,
    open: Open,
    make: impl FnOnce(mpsc::Sender<Bytes>) -> Result<()> + Send + 'static,
) -> Result<u64> {
    let (requests, receiver) = mpsc::channel(2);
    let request = |kind| CopyToRequest { kind: Some(kind) };
    let mut client = context.client.containers();
    let call = client.copy_to(ReceiverStream::new(receiver));
    let feed = async move {
        let (sender, pieces) = pipe::queue();
        let (told, made) = tokio::sync::oneshot::channel();
        // A thread of its own: one that waits for input must not keep the
        // program from its end.
        std::thread::spawn(move || drop(told.send(make(sender))));
        let mut copied = 0;
        let mut pieces = ReceiverStream::new(pieces);
        let mut open_for_more = requests.send(request(Kind::Open(open))).await.is_ok();
        while open_for_more && let Some(piece) = pieces.next().await {
            copied += piece.len() as u64;
            open_for_more = requests.send(request(Kind::Data(piece))).await.is_ok();
        }
        drop(pieces);
        made.await.map_err(|e| Error::new(format!("make the archive: {e}")))??;
        drop(requests.send(request(Kind::End(copy_to_request::End {}))).await);
        Ok::<_, Error>(copied)
    };
    let (mut feed, mut call) = (std::pin::pin!(feed), std::pin::pin!(call));
    let (fed, answer) = tokio::select! {
        // Whatever is still to come, the engine wants no more of it.
        answer = &mut call => match answer {
            Err(status) => return Err(status.into()),
            answer => (feed.await, answer),
        },
        fed = &mut feed => (fed, call.await),
    };
    match (fed, answer) {
        (Ok(copied), Ok(_)) => Ok(copied),
        // That we broke it off is no news; why is.
        (Err(error), Err(status)) if matches!(status.code(), Code::Cancelled | Code::Unknown) => Err(error),
        (_, Err(status)) => Err(status.into()),
        (Err(error), Ok(_)) => Err(error),
    }
}

/// What is copied from here.
struct Source {
    what: What,
    /// The directory that it is in, and what it is called there; without a
    /// name it is the directory itself.
    dir: PathBuf,
    child: Option<OsString>,
    /// What the archive calls it.
    name: OsString,
}

impl Source {
    fn look(from: &str, follow: bool) -> Result<Self> {
        let failed = |e: &io::Error| match e.kind() {
            io::ErrorKind::NotFound => Error::new(format!("lstat {from}: no such file or directory")),
            _ => Error::io(format_args!("lstat {from}"), e),
        };
        let path = Path::new(from);
        let contents = from.ends_with("/.") || from == ".";
        let slash = contents || from.ends_with('/');
        let found = if follow || slash { fs::metadata(path) } else { fs::symlink_metadata(path) };
        let found = found.map_err(|e| failed(&e))?;
        let whole = |path: &Path| fs::canonicalize(path).map_err(|e| failed(&e));
        if found.is_dir() {
            let dir = whole(path)?;
            let named = path.file_name().filter(|_| !contents).or_else(|| dir.file_name());
            let name = named.unwrap_or(OsStr::new("root")).to_owned();
            let what = if contents { What::Contents } else { What::Directory };
            return Ok(Self { what, dir, child: None, name });
        }
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            return Err(failed(&io::ErrorKind::InvalidInput.into()));
        };
        let real = if follow { whole(path)? } else { path.to_owned() };
        let dir = match real.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        Ok(Self { what: What::File, dir, child: real.file_name().map(OsStr::to_owned), name })
    }

    fn pack(self, queue: mpsc::Sender<Bytes>) -> Result<()> {
        let dir = File::open(&self.dir);
        let dir = dir.map_err(|e| Error::io(format_args!("open {}", self.dir.display()), &e))?;
        let descriptors = paths::descriptors().map_err(|e| Error::io("open /proc/self/fd", &e.into()))?;
        let mut writer = tar::Writer::new(Sink::new(queue));
        let mut packer = Packer::new(&mut writer, descriptors.as_fd(), Mounts::Cross);
        let packed = match &self.child {
            None => packer.directory(dir.as_fd(), self.name.as_bytes()),
            Some(child) => packer.file(dir.as_fd(), child, self.name.as_bytes()),
        };
        let ended = match packed {
            Ok(()) => writer.finish().and_then(|mut sink| sink.flush()),
            Err(e) if e.source_io().kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(e) => return Err(Error::new(e.to_string())),
        };
        match ended {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("make the archive", &e)),
            _ => Ok(()),
        }
    }
}
