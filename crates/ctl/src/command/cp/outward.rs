// SPDX-License-Identifier: Apache-2.0
//! Out of a container. Its archive is hostile: what is unpacked stays below
//! the directory that the user named, no link is followed, and no device of
//! the host's is made of one of the container's.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use berth::api::v1::{CopyFromRequest, CopyFromResponse, PathStat, copy_from_response::Kind};
use berth_files::{
    extract::{self, Devices, Extracted, Options, Top},
    kernel::paths,
    make::{Attributes, Owner, Policy},
    place::{self, Place, There, What},
    tar,
    walk::{Links, Walk},
};
use tonic::Streaming;

use super::super::pipe;
use crate::{
    cli::files::Cp,
    context::Context,
    error::{Error, Result},
    output,
};

/// Headers are read from a buffer of this size.
const BUFFER: usize = 64 << 10;
const TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

struct Coming {
    stat: PathStat,
    data: Streaming<CopyFromResponse>,
}

async fn ask(context: &Context, container: String, path: &str, follow: bool) -> Result<Coming> {
    let request = CopyFromRequest {
        namespace: context.namespace.clone(),
        container,
        path: path.to_owned().into(),
        follow,
    };
    let mut data = context.client.containers().copy_from(request).await?.into_inner();
    match data.message().await?.and_then(|first| first.kind) {
        Some(Kind::Stat(stat)) => Ok(Coming { stat, data }),
        _ => Err(Error::new("the engine didn't say what it copies")),
    }
}

/// The archive as it comes.
pub(super) async fn to_stdout(
    context: &Context,
    container: String,
    path: String,
    follow: bool,
) -> Result<()> {
    let mut coming = ask(context, container, &path, follow).await?;
    let mut stdout = io::stdout();
    while let Some(piece) = coming.data.message().await? {
        if let Some(Kind::Data(data)) = piece.kind {
            stdout.write_all(&data)?;
        }
    }
    Ok(stdout.flush()?)
}

/// Unpacks it; how many bytes came.
pub(super) async fn to_path(
    context: &Context,
    container: String,
    path: String,
    to: &str,
    args: &Cp,
) -> Result<u64> {
    // Before anything is asked for, as Docker has it.
    let there = Destination::look(to)?;
    let Coming { stat, mut data } = ask(context, container, &path, args.follow_link).await?;
    let (dir, top) = there.place(&stat, &path)?;
    let owner = if args.archive { Owner::Archived } else { Owner::Maker };
    let attributes = if args.archive { Attributes::All } else { Attributes::User };
    let options = Options { policy: Policy { owner, attributes }, devices: Devices::Skip, top };
    let (sender, receiver) = pipe::queue();
    let unpacking = tokio::task::spawn_blocking(move || unpack(&dir, pipe::Source::new(receiver), &options));
    let mut copied = 0;
    let mut broken = None;
    loop {
        match data.message().await {
            Ok(None) => break,
            Ok(Some(piece)) => {
                let Some(Kind::Data(bytes)) = piece.kind else { continue };
                copied += bytes.len() as u64;
                if sender.send(bytes).await.is_err() {
                    // It can't go on, and says why.
                    break;
                }
            }
            Err(status) => {
                broken = Some(Error::from(status));
                break;
            }
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(|e| Error::new(format!("unpack the archive: {e}")))?;
    if let Some(error) = broken {
        return Err(error);
    }
    let Extracted { skipped, .. } = unpacked?;
    if skipped > 0 {
        output::warn(&format!("{skipped} devices were left out: here they would be the host's"));
    }
    Ok(copied)
}

fn unpack(dir: &Path, archive: pipe::Source, options: &Options) -> Result<Extracted> {
    let opened = File::open(dir).map_err(|e| Error::io(format_args!("open {}", dir.display()), &e))?;
    let descriptors = paths::descriptors().map_err(|e| Error::io("open /proc/self/fd", &e.into()))?;
    let mut archive = tar::Reader::new(io::BufReader::with_capacity(BUFFER, archive));
    let walk = Walk::new(opened.into(), Links::Refuse);
    extract::extract(walk, &mut archive, options, descriptors.as_fd()).map_err(|e| Error::new(e.to_string()))
}

/// What is where the copy goes.
struct Destination {
    path: PathBuf,
    there: There,
    slash: bool,
}

impl Destination {
    fn look(to: &str) -> Result<Self> {
        let slash = to.ends_with('/') || to.ends_with("/.") || to == ".";
        // The user's own links are the user's business: they are followed.
        match fs::metadata(to) {
            Ok(found) if found.is_dir() || found.is_file() => {
                let path = fs::canonicalize(to).map_err(|e| Error::io(to, &e))?;
                Ok(Self { path, there: if found.is_dir() { There::Directory } else { There::File }, slash })
            }
            Ok(_) => {
                let words = format!("invalid output path: {to:?} must be a directory or a regular file");
                Err(Error::new(words))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let path = PathBuf::from(to.trim_end_matches('/'));
                let above = match path.parent() {
                    Some(above) if !above.as_os_str().is_empty() => above,
                    _ => Path::new("."),
                };
                if above.is_dir() {
                    return Ok(Self { path, there: There::Nothing, slash });
                }
                let above = above.display();
                Err(Error::new(format!("invalid output path: directory \"{above}\" does not exist")))
            }
            Err(e) => Err(Error::io(to, &e)),
        }
    }

    /// The directory to unpack into, and what the archive's top is to be.
    fn place(self, stat: &PathStat, source: &str) -> Result<(PathBuf, Top)> {
        let contents = source.ends_with("/.") || source == "." || &stat.name[..] == b"/";
        let what = match (stat.mode & TYPE == DIRECTORY, contents) {
            (true, true) => What::Contents,
            (true, false) => What::Directory,
            (false, _) => What::File,
        };
        let place = place::place(what, self.there, self.slash).map_err(|e| Error::new(e.to_string()))?;
        let (above, name) = (self.path.parent(), self.path.file_name());
        Ok(match (place, name) {
            (Place::Into, _) => (self.path, Top::Keep),
            (Place::As, Some(name)) => {
                let above = above.filter(|above| !above.as_os_str().is_empty());
                (above.unwrap_or(Path::new(".")).to_owned(), Top::Rename(name.to_owned()))
            }
            (Place::Contents | Place::As, _) => (self.path, Top::Strip),
        })
    }
}
