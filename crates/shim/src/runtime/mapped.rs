// SPDX-License-Identifier: Apache-2.0
//! Mounts that only the host's root can make for a container with users of its
//! own, and those of another container: made here, attached nowhere, and sent to
//! init, which attaches them.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag},
    mount::MsFlags,
    sched::CloneFlags,
    sys::stat::Mode,
    unistd::geteuid,
};

use super::{
    channel::{self, ToShim},
    container::Container,
    error::{During as _, Error, Kind, Result},
    plan::{IdMaps, Mount, Plan, Rootfs, Source, Writable},
    users,
};
use crate::{
    init::overlay,
    kernel::{
        SysError,
        mount::{self, Attributes, Reach},
        paths, process, socket, sys,
    },
};

/// How long an overlay may take.
const WITHIN: Duration = Duration::from_secs(60);

/// Which mounts are made here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FromShim {
    /// The root file system.
    pub(crate) root: bool,
    /// Binds whose ids aren't mapped, too.
    binds: bool,
}

impl FromShim {
    /// Layers, and what is to be bound, are the host root's, and often nobody
    /// else may even reach them.
    pub(super) fn of(plan: &Plan) -> Self {
        let binds = plan.namespaces.has_private_users() && geteuid().is_root();
        let root = match &plan.rootfs {
            Rootfs::Overlay { ids, .. } => ids.is_some() || binds,
            Rootfs::Bind { .. } => false,
        };
        Self { root, binds }
    }

    /// Whether this one is.
    pub(crate) fn makes(self, mount: &Mount) -> bool {
        mount.ids.is_some()
            || mount.of_namespace.is_some()
            || self.binds && matches!(mount.source, Source::Bind { .. })
    }
}

/// Makes all of them, in the order in which init takes them.
pub(super) fn send(plan: &Plan, container: &Container) -> Result<()> {
    let users = Users { plan, pid: container.pid() };
    let from_shim = FromShim::of(plan);
    if from_shim.root
        && let Rootfs::Overlay { lower, writable, options, ids, .. } = &plan.rootfs
    {
        let made = match ids {
            None => overlay::mount(lower, writable.as_ref(), options),
            Some(maps) => remapped(lower, writable.as_ref(), options, users.of(Some(maps))?.as_fd()),
        };
        let made = made.during(|| "mount the root file system".to_owned())?;
        channel::send_mount(container.socket()?, &made)?;
    }
    for mount in plan.mounts.iter().filter(|mount| from_shim.makes(mount)) {
        let made = bind(mount, &users).during(|| format!("mount {}", mount.destination.display()))?;
        channel::send_mount(container.socket()?, &made)?;
    }
    Ok(())
}

/// The user namespaces that ids are mapped by.
struct Users<'a> {
    plan: &'a Plan,
    pid: u32,
}

impl Users<'_> {
    /// One with these maps, or the container's own.
    fn of(&self, maps: Option<&IdMaps>) -> Result<OwnedFd> {
        match maps {
            Some(maps) if self.plan.id_maps.as_ref() != Some(maps) => users::namespace(maps),
            _ => users::of(self.pid),
        }
    }
}

fn bind(mount: &Mount, users: &Users<'_>) -> Result<OwnedFd> {
    let Source::Bind { path, recursive } = &mount.source else {
        return Err(Error::new(Kind::Os, "only a bind is made by the shim"));
    };
    let reach = if *recursive { Reach::Tree } else { Reach::Mount };
    let made = match &mount.of_namespace {
        None => clone(path, reach)?,
        Some(namespace) => clone_in(namespace, path, reach)?,
    };
    if let Some(ids) = &mount.ids {
        let reach = if ids.recursive { Reach::Tree } else { Reach::Mount };
        idmap(&made, reach, users.of(ids.maps.as_ref())?.as_fd(), path)?;
    }
    Ok(made)
}

fn clone(path: &Path, reach: Reach) -> Result<OwnedFd> {
    let host = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    Ok(mount::clone_mount(&host, path, reach)?)
}

fn idmap(mount: &OwnedFd, reach: Reach, users: BorrowedFd<'_>, path: &Path) -> Result<()> {
    match mount::set_attributes(mount, reach, Attributes::idmap(users)) {
        // What the manual says of it: the file system doesn't support it yet.
        Err(e) if e.errno() == Errno::EINVAL => {
            let path = path.display();
            Err(Error::new(Kind::Unsupported, format!("the file system of {path} can't map ids: {e}")))
        }
        result => Ok(result?),
    }
}

/// An overlay whose layers show mapped ids. Overlayfs takes layers by name,
/// and before Linux 6.15 only such that are mounted somewhere: so each of them
/// is mounted over itself, in a mount namespace that goes with its one process.
fn remapped(
    lower: &[PathBuf],
    writable: Option<&Writable>,
    options: &[(String, Option<String>)],
    users: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let flags = u64::from(CloneFlags::CLONE_NEWNS.bits().cast_unsigned());
    by_helper(flags, || map_in_place(lower, users).and_then(|()| overlay::mount(lower, writable, options)))
}

/// A copy of what is mounted at `path` in another mount namespace. Its owner may
/// have put anything there: no link is followed.
fn clone_in(namespace: &Path, path: &Path, reach: Reach) -> Result<OwnedFd> {
    let namespace = paths::open_host(namespace, OFlag::O_RDONLY)?;
    by_helper(0, || {
        let joined = nix::sched::setns(&namespace, CloneFlags::CLONE_NEWNS);
        sys(joined, || format!("setns({}, CLONE_NEWNS)", namespace.as_raw_fd()))?;
        // setns has made the namespace's root ours.
        let root = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
        let place = paths::openat2(&root, path, OFlag::O_PATH, Mode::empty(), resolve)?;
        Ok(mount::clone_mount(&place, Path::new(""), reach)?)
    })
}

/// What a process of its own makes, which goes with it.
fn by_helper(flags: u64, make: impl FnOnce() -> Result<OwnedFd>) -> Result<OwnedFd> {
    let (ours, theirs) = socket::pair()?;
    let helper = process::clone3(flags, None, move || {
        let said = make().map_or_else(ToShim::Failed, ToShim::Made);
        // Who should hear of a failure has died.
        let _ = channel::tell_shim(&theirs, &said);
        process::exit_now(0)
    })?;
    let answer = channel::from_init(&ours, Instant::now() + WITHIN);
    if answer.is_err() {
        process::pidfd_send_signal(helper.pidfd.as_fd(), libc::SIGKILL)?;
    }
    users::reap(&helper)?;
    match answer? {
        ToShim::Made(made) => Ok(made),
        ToShim::Failed(e) => Err(e),
        other => Err(Error::new(Kind::Os, format!("the helper sent {other:?}"))),
    }
}

pub(crate) fn map_in_place(lower: &[PathBuf], users: BorrowedFd<'_>) -> Result<()> {
    let host = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let private = Attributes::propagation(MsFlags::MS_PRIVATE.bits());
    mount::set_attributes(&host, Reach::Tree, private)?;
    for path in lower {
        let layer = clone(path, Reach::Mount)?;
        idmap(&layer, Reach::Mount, users, path)?;
        let place = paths::open_host(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        mount::attach(&layer, &place).map_err(|e: SysError| Error::from(e))?;
    }
    Ok(())
}
