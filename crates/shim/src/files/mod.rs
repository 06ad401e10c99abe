// SPDX-License-Identifier: Apache-2.0
//! A short-lived process that works on the files of one container, for the
//! engine: `berth cp` and `berth export`, both ways.
//!
//! It is in the container's mount namespace and in none of its others (but for
//! its users, where it has some of its own), so that nothing in the container
//! can see it, and executes nothing of the container's. Every path is resolved
//! by descriptor and ends at the container's root; every byte of an archive is
//! hostile. `boot` calls [`run`]; the other end is the engine's `shim::files`.

mod root;
mod stream;

use std::{
    ffi::{OsStr, OsString},
    io::{self, BufWriter, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            net::UnixStream,
        },
    },
    path::Path,
};

use berth::{
    api::shim::{
        FileStat, FilesError, FilesRequest, ReadPath, StatPath, WritePath, files_request::Work,
        write_path::What,
    },
    files::{self, Kind},
};
use berth_files::{
    Error as FilesFailure,
    extract::{self, Devices, Options, Top},
    kernel::paths,
    make::{Attributes, Owner, Policy},
    pack::{Mounts, Packer},
    place::{self, Place, There},
    tar,
    walk::{self, End, Links, Walk},
};
use nix::{
    errno::Errno,
    fcntl::{OFlag, readlinkat},
    sys::{
        stat::{FileStat as Stat, SFlag, fstat},
        statvfs::{FsFlags, fstatvfs},
    },
};
use prost::Message as _;

use self::{
    root::Root,
    stream::{Incoming, Outgoing},
};
use crate::kernel::{SysError, mount, process};

/// The archive is written in pieces of this size.
const BUFFER: usize = 64 << 10;

/// Why the work ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The other end has gone: there is nobody to tell.
    Gone,
    /// What the engine is told.
    Told(FilesError),
}

impl Failure {
    fn refused(message: impl Into<String>) -> Self {
        Self::Told(FilesError { errno: 0, message: message.into(), root_read_only: false })
    }

    fn errno(errno: Errno, message: impl Into<String>) -> Self {
        Self::Told(FilesError { errno: errno as i32, message: message.into(), root_read_only: false })
    }
}

impl Failure {
    fn runtime(error: crate::runtime::Error) -> Self {
        Self::errno(Errno::EIO, error.to_string())
    }
}

impl From<SysError> for Failure {
    fn from(e: SysError) -> Self {
        Self::errno(e.errno(), e.to_string())
    }
}

impl From<FilesFailure> for Failure {
    fn from(e: FilesFailure) -> Self {
        let errno = e.source_io().raw_os_error().unwrap_or(0);
        Self::Told(FilesError { errno, message: e.to_string(), root_read_only: false })
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

/// Does what the engine asks for on the inherited socket, once.
///
/// # Errors
/// When there is no engine to tell of a failure.
pub fn run() -> io::Result<()> {
    let socket = process::adopt(files::SOCKET_FD).map_err(io::Error::other)?;
    let target = process::adopt(files::TARGET_FD).map_err(io::Error::other)?;
    let mut socket = UnixStream::from(socket);
    let request = files::read(&mut socket)?;
    if request.kind != Kind::Request {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let request = FilesRequest::decode(request.payload)?;
    match work(&socket, request, target) {
        Ok(()) => files::write(&mut socket, Kind::End, b""),
        Err(Failure::Gone) => Ok(()),
        Err(Failure::Told(error)) => files::write(&mut socket, Kind::Error, &error.encode_to_vec()),
    }
}

fn work(socket: &UnixStream, request: FilesRequest, target: OwnedFd) -> Result<()> {
    let Some(work) = request.work else { return Err(Failure::refused("nothing to do")) };
    // While `/proc` is still the host's.
    let descriptors = paths::descriptors().map_err(|e| Failure::errno(e, "open /proc/self/fd"))?;
    let root = match &request.root {
        Some(layers) => Root::mount(layers)?,
        None => Root::join(&target, request.join_users)?,
    };
    root::drop_rights()?;
    let job = Job { root, descriptors, socket };
    match work {
        Work::Stat(asked) => job.stat(&asked),
        Work::Read(asked) => job.read(&asked),
        Work::Write(asked) => job.write(&asked),
    }
    // Held until here: with it goes the lock on the layers.
    .inspect(|()| drop(target))
}

struct Job<'a> {
    root: Root,
    descriptors: OwnedFd,
    socket: &'a UnixStream,
}

/// What a path leads to.
struct Found {
    walk: Walk,
    end: End,
    name: OsString,
}

impl Job<'_> {
    fn find(&self, path: &[u8], follow: bool) -> Result<Found> {
        let (components, directory) = walk::components_of(OsStr::from_bytes(path))?;
        let mut walk = Walk::new(self.root.open()?, Links::Follow);
        let end = walk.resolve(&components, follow || directory)?;
        if directory && matches!(end, End::Name(..)) {
            return Err(Failure::errno(Errno::ENOTDIR, "not a directory"));
        }
        let name = components.last().filter(|name| *name != "..").cloned().unwrap_or_else(|| "/".into());
        Ok(Found { walk, end, name })
    }

    fn stat(&self, asked: &StatPath) -> Result<()> {
        let found = self.find(&asked.path, asked.follow)?;
        self.tell(&found)
    }

    fn tell(&self, found: &Found) -> Result<()> {
        let look = |e: Errno| Failure::errno(e, "look at it");
        let (stat, link_target) = match &found.end {
            End::Nothing(_) => return Err(Failure::errno(Errno::ENOENT, "no such file or directory")),
            End::Here => (fstat(found.walk.here()).map_err(look)?, Vec::new()),
            End::Name(name, stat) => {
                let is_link = berth_files::kernel::fs::file_type(stat) == SFlag::S_IFLNK;
                let target = if is_link {
                    readlinkat(found.walk.here(), name.as_os_str()).map_err(look)?
                } else {
                    OsString::new()
                };
                (*stat, target.into_vec())
            }
        };
        let told = described(&stat, &found.name, link_target);
        files::write(&mut { self.socket }, Kind::Stat, &told.encode_to_vec()).map_err(|_| Failure::Gone)
    }

    fn read(&self, asked: &ReadPath) -> Result<()> {
        if asked.export {
            return self.export();
        }
        let found = self.find(&asked.path, asked.follow)?;
        self.tell(&found)?;
        let name = if found.name == "/" { OsStr::new(".") } else { &found.name };
        self.archive(Mounts::Cross, |packer| match &found.end {
            End::Name(child, _) => packer.file(found.walk.here(), child, name.as_bytes()),
            _ => packer.directory(found.walk.here(), name.as_bytes()),
        })
    }

    fn export(&self) -> Result<()> {
        let top = self.root.alone()?;
        self.archive(Mounts::Stay, |packer| packer.directory(top.as_fd(), b""))
    }

    fn archive(
        &self,
        mounts: Mounts,
        pack: impl FnOnce(&mut Packer<'_, BufWriter<Outgoing<'_>>>) -> berth_files::Result<()>,
    ) -> Result<()> {
        let outgoing = Outgoing::new(self.socket);
        let mut writer = tar::Writer::new(BufWriter::with_capacity(BUFFER, outgoing));
        pack(&mut Packer::new(&mut writer, self.descriptors.as_fd(), mounts))?;
        // Nobody reads any more: nobody needs to be told.
        let mut flushed = writer.finish().map_err(|_| Failure::Gone)?;
        flushed.flush().map_err(|_| Failure::Gone)
    }

    fn write(&self, asked: &WritePath) -> Result<()> {
        let found = self.find(&asked.path, true)?;
        let slash = asked.path.ends_with(b"/") || asked.path.ends_with(b"/.");
        let top = placed(asked.what(), &found, slash)?;
        let owner = if asked.keep_owner { Owner::Archived } else { Owner::Given(0, 0) };
        let options =
            Options { policy: Policy { owner, attributes: Attributes::All }, devices: Devices::Make, top };
        let look = |e: Errno| Failure::errno(e, "look at the file system");
        let there = match &found.end {
            // Something may be mounted on the very file.
            End::Name(name, _) => {
                Some(paths::open_child(found.walk.here(), Path::new(name), OFlag::O_PATH).map_err(look)?)
            }
            _ => None,
        };
        let there = there.as_ref().map_or(found.walk.here(), |file| file.as_fd());
        if fstatvfs(there).map_err(look)?.flags().contains(FsFlags::ST_RDONLY) {
            return Err(self.read_only(&found.walk));
        }
        let mut archive = tar::Reader::new(io::BufReader::with_capacity(BUFFER, Incoming::new(self.socket)));
        extract::extract(found.walk, &mut archive, &options, self.descriptors.as_fd())?;
        Ok(())
    }

    fn read_only(&self, walk: &Walk) -> Failure {
        let mounts = (mount::id_of(walk.here()), mount::id_of(&self.root));
        let of_root = matches!(mounts, (Ok(here), Ok(root)) if here == root);
        Failure::Told(FilesError {
            errno: Errno::EROFS as i32,
            message: "read-only file system".to_owned(),
            root_read_only: of_root,
        })
    }
}

/// Where the archive's one thing goes; the walk is in the directory for it.
fn placed(what: What, found: &Found, slash: bool) -> Result<Top> {
    let what = match what {
        What::Archive => {
            return match found.end {
                End::Here => Ok(Top::Keep),
                End::Name(..) => Err(Failure::errno(Errno::ENOTDIR, "not a directory")),
                End::Nothing(_) => Err(Failure::errno(Errno::ENOENT, "no such file or directory")),
            };
        }
        What::File => place::What::File,
        What::Directory => place::What::Directory,
        What::Contents => place::What::Contents,
    };
    let (there, name) = match &found.end {
        End::Here => (There::Directory, None),
        End::Name(name, _) => (There::File, Some(name)),
        End::Nothing(name) => (There::Nothing, Some(name)),
    };
    let place = place::place(what, there, slash).map_err(|refusal| Failure::refused(refusal.to_string()))?;
    Ok(match (place, name) {
        (Place::Into, _) => Top::Keep,
        (Place::As, Some(name)) => Top::Rename(name.clone()),
        (Place::Contents | Place::As, _) => Top::Strip,
    })
}

fn described(stat: &Stat, name: &OsStr, link_target: Vec<u8>) -> FileStat {
    FileStat {
        name: name.as_bytes().to_vec(),
        mode: stat.st_mode,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: Some(prost_types::Timestamp {
            seconds: stat.st_mtime,
            nanos: i32::try_from(stat.st_mtime_nsec).unwrap_or(0),
        }),
        link_target,
    }
}
