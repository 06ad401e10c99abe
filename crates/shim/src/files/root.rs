// SPDX-License-Identifier: Apache-2.0
//! The container's root: joined while it runs, mounted for this process alone
//! while it doesn't. Then all rights but those over files are given up.

use std::{
    os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use berth::api::shim::{FilesBind, FilesIds, FilesRoot};
use berth_files::kernel::paths as shared;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::MsFlags,
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        stat::{Mode, mkdirat},
    },
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};

use super::{Failure, Result};
use crate::{
    init::overlay,
    kernel::{
        Procfs, SysError,
        mount::{self, Attributes, FileSystem, Reach, attr},
        paths::{self, Make},
        process::{self, CapSets},
        sys,
    },
    runtime::{IdMaps, Range, Writable, mapped, users},
};

/// CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP: what
/// it takes to read and to make any file (capabilities(7)).
const RIGHTS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 27 | 1 << 31;

/// The root directory of a container.
#[derive(Debug)]
pub(super) struct Root {
    directory: OwnedFd,
    /// The same without what is mounted in it, where that can be had.
    alone: Option<OwnedFd>,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Root {
    /// That of a process.
    pub(super) fn join(process: &OwnedFd, users: bool) -> Result<Self> {
        let mut namespaces = CloneFlags::CLONE_NEWNS;
        if users {
            namespaces |= CloneFlags::CLONE_NEWUSER;
        }
        sys(setns(process, namespaces), || format!("setns({namespaces:?})"))?;
        if users {
            become_root()?;
        }
        // The namespace's own root: setns has made it ours.
        let directory = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let alone = mount::clone_mount(&directory, Path::new(""), Reach::Mount).ok();
        Ok(Self { directory, alone })
    }

    /// Of layers, in a mount namespace of this process: no other sees it, and
    /// the kernel takes it away with it.
    pub(super) fn mount(layers: &FilesRoot) -> Result<Self> {
        sys(unshare(CloneFlags::CLONE_NEWNS), || "unshare(CLONE_NEWNS)".to_owned())?;
        let host = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let private = Attributes::propagation(MsFlags::MS_PRIVATE.bits());
        mount::set_attributes(&host, Reach::Tree, private)?;
        let mut lower: Vec<PathBuf> = layers.lower.iter().map(PathBuf::from).collect();
        let users = users(&layers.ids)?;
        if let Some(users) = &users {
            mapped::map_in_place(&lower, users.as_fd()).map_err(Failure::runtime)?;
        }
        let writable = if layers.work.is_empty() {
            lower.insert(0, PathBuf::from(&layers.upper));
            scratch(&host)?
        } else {
            Writable { upper: PathBuf::from(&layers.upper), work: PathBuf::from(&layers.work) }
        };
        let tree = overlay::mount(&lower, Some(&writable), &[]).map_err(Failure::runtime)?;
        let alone = mount::clone_mount(&tree, Path::new(""), Reach::Mount)?;
        // Mounts can be attached in it only once it is attached itself.
        mount::attach(&tree, &host)?;
        let root = paths::Root::new(tree.try_clone().map_err(|e| SysError::from_io("dup", &e))?);
        for bind in &layers.binds {
            attach(&host, &root, bind)?;
        }
        if layers.read_only {
            mount::set_attributes(&tree, Reach::Mount, Attributes::set(attr::RDONLY))?;
        }
        if let Some(users) = users {
            sys(setns(&users, CloneFlags::CLONE_NEWUSER), || "setns(CLONE_NEWUSER)".to_owned())?;
            become_root()?;
        }
        Ok(Self { directory: tree, alone: Some(alone) })
    }

    /// A descriptor to begin a walk with.
    pub(super) fn open(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let opened = shared::open_in_root(self.directory.as_fd(), Path::new("."), flags);
        opened.map_err(|e| Failure::errno(e, "open the container's root"))
    }

    /// The same without what is mounted in it; where that may not be seen,
    /// mounts and all, which the caller then has to stay out of.
    pub(super) fn alone(&self) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let root = self.alone.as_ref().unwrap_or(&self.directory);
        let opened = shared::open_in_root(root.as_fd(), Path::new("."), flags);
        opened.map_err(|e| Failure::errno(e, "open the container's root"))
    }
}

/// Takes ids that the user namespace maps; with others nothing could be made.
fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    // A namespace may forbid it, and nothing here goes by groups.
    let _ = setgroups(&[]);
    sys(setresgid(gid, gid, gid), || "setresgid(0)".to_owned())?;
    sys(setresuid(uid, uid, uid), || "setresuid(0)".to_owned())?;
    Ok(())
}

/// A user namespace with the container's maps, where it has some.
fn users(ids: &[FilesIds]) -> Result<Option<OwnedFd>> {
    if ids.is_empty() {
        return Ok(None);
    }
    let range = |ids: &FilesIds| Range { inside: ids.container, outside: ids.host, size: ids.size };
    let ranges: Vec<_> = ids.iter().map(range).collect();
    let maps = IdMaps { users: ranges.clone(), groups: ranges };
    users::namespace(&maps).map(Some).map_err(Failure::runtime)
}

/// A writable layer that nobody keeps, in memory: only the places to mount
/// something on are made in it. It is attached where no path leads to it, as
/// overlayfs takes only what is attached.
fn scratch(host: &OwnedFd) -> Result<Writable> {
    let memory = FileSystem::open("tmpfs")?.mount(0)?;
    mount::attach(&memory, host)?;
    for name in ["upper", "work"] {
        sys(mkdirat(&memory, name, Mode::from_bits_truncate(0o755)), || format!("mkdir({name})"))?;
    }
    Procfs::of_host()?;
    // Held until the process ends.
    let base = PathBuf::from(format!("/proc/self/fd/{}", memory.into_raw_fd()));
    Ok(Writable { upper: base.join("upper"), work: base.join("work") })
}

/// Mounts something of the host's where the container would have it.
fn attach(host: &OwnedFd, root: &paths::Root, bind: &FilesBind) -> Result<()> {
    let source = match mount::clone_mount(host, Path::new(&bind.source), Reach::Tree) {
        Ok(source) => source,
        // It would keep the container from starting, and no copy from it.
        Err(e) if e.errno() == Errno::ENOENT => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let make = if paths::is_directory(&source)? { Make::Directory } else { Make::File };
    let target = match root.make(Path::new(&bind.target), make) {
        // There is nothing to mount it on, and nothing can be made.
        Err(e) if e.errno() == Errno::EROFS => return Ok(()),
        target => target?,
    };
    if bind.read_only {
        mount::set_attributes(&source, Reach::Tree, Attributes::set(attr::RDONLY))?;
    }
    Ok(mount::attach(&source, &target)?)
}

/// Gives up every right that isn't one over files.
pub(super) fn drop_rights() -> Result<()> {
    sys(prctl::set_no_new_privs(), || "prctl(PR_SET_NO_NEW_PRIVS)".to_owned())?;
    sys(prctl::set_dumpable(false), || "prctl(PR_SET_DUMPABLE, 0)".to_owned())?;
    let kept = process::capabilities()?.permitted & RIGHTS;
    Ok(process::set_capabilities(CapSets { effective: kept, permitted: kept, inheritable: 0 })?)
}
