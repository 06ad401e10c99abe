// SPDX-License-Identifier: Apache-2.0
//! The root file system: mounted in the container's own mount namespace only,
//! and entered by pivot_root.

use std::{os::fd::OwnedFd, path::Path};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, MsFlags},
};

use super::overlay;
use crate::{
    kernel::{
        SysError, fd,
        mount::{self, Attributes, Reach, attr},
        paths::{self, Root},
        sys,
    },
    runtime::{Error, Kind, Plan, Propagation, Result, Rootfs},
};

/// Mounts the root file system on top of the host's root, or on the directory
/// `shown` where hooks look for it. Absolute paths still mean the host: this
/// process's root is the mount below.
///
/// `made` is one that has been made before, by somebody with more rights.
pub(super) fn attach(plan: &Plan, shown: Option<&Path>, made: Option<OwnedFd>) -> Result<Root> {
    let host = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let shown = shown.map(|path| paths::open_host(path, OFlag::O_PATH | OFlag::O_DIRECTORY));
    let target = match shown {
        // A bundle whose root is made of layers need not have the directory.
        Some(Err(e)) if e.errno() != Errno::ENOENT => return Err(e.into()),
        Some(Ok(directory)) => directory,
        _ => host.try_clone().map_err(|e| SysError::from_io("dup(/)", &e))?,
    };
    if plan.namespaces.has_private_mounts() {
        isolate(&host, &target, plan.propagation)?;
    }
    let tree = match (made, &plan.rootfs) {
        (Some(made), _) => made,
        (None, Rootfs::Overlay { lower, writable, options, .. }) => {
            overlay::mount(lower, writable.as_ref(), options)?
        }
        (None, Rootfs::Bind { source, recursive }) => {
            mount::clone_mount(&host, source, if *recursive { Reach::Tree } else { Reach::Mount })?
        }
    };
    if !paths::is_directory(&tree)? {
        return Err(Error::invalid("the root file system is no directory"));
    }
    let private = plan.namespaces.has_private_mounts();
    if plan.propagation.kind == MsFlags::MS_SHARED || !private {
        // A copy of a shared mount is its peer: what is mounted in it below
        // would be mounted on the host.
        mount::set_attributes(&tree, Reach::Tree, Attributes::propagation(MsFlags::MS_PRIVATE.bits()))?;
    }
    // In the host's mount namespace it stays on its own: its mounts are to be
    // seen from inside only.
    if private {
        mount::attach(&tree, &target)?;
    }
    Ok(Root::new(tree))
}

/// Keeps what is mounted here from the host: rslave by default. Where the
/// specification wants shared mounts, the mount of `target` alone is made
/// private, so that the mount on top of it is not shared.
fn isolate(host: &OwnedFd, target: &OwnedFd, propagation: Propagation) -> Result<()> {
    let reach = if propagation.recursive { Reach::Tree } else { Reach::Mount };
    if propagation.kind == MsFlags::MS_SHARED {
        let holds_target = mount::root_of(target)?;
        let private = Attributes::propagation(MsFlags::MS_PRIVATE.bits());
        mount::set_attributes(&holds_target, Reach::Mount, private)?;
        return Ok(());
    }
    if propagation.kind == MsFlags::MS_UNBINDABLE || !propagation.recursive {
        mount::set_attributes(host, Reach::Tree, Attributes::propagation(MsFlags::MS_SLAVE.bits()))?;
    }
    // An unbindable root could not be left: it is said of the new one.
    if propagation.kind != MsFlags::MS_UNBINDABLE {
        mount::set_attributes(host, reach, Attributes::propagation(propagation.bits()))?;
    }
    Ok(())
}

/// Makes the new root read-only, now that all is in place.
pub(super) fn finish(root: &Root, plan: &Plan) -> Result<()> {
    let read_only = plan.read_only_root || matches!(plan.rootfs, Rootfs::Overlay { read_only: true, .. });
    if read_only {
        mount::set_attributes(root, Reach::Mount, Attributes::set(attr::RDONLY))?;
    }
    Ok(())
}

/// Enters the new root; mounts that are the host's stay out of it.
pub(super) fn enter(root: &Root, plan: &Plan) -> Result<()> {
    if plan.namespaces.has_private_mounts() {
        pivot(root, plan.propagation)?;
        return propagate(root, plan.propagation);
    }
    sys(nix::unistd::fchdir(root), || format!("fchdir({})", fd(root)))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a container that shares the host's mounts can't let go of them"
    )]
    sys(nix::unistd::chroot("."), || "chroot(\".\")".to_owned())?;
    Ok(sys(nix::unistd::chdir("/"), || "chdir(\"/\")".to_owned())?)
}

/// What a mount in a root that isn't mounted itself fails with.
pub(super) fn unless_detached(plan: &Plan, e: Error) -> Error {
    if plan.namespaces.has_private_mounts() || e.kind() != Kind::Os {
        return e;
    }
    let why = "a container in the host's mount namespace needs Linux 6.15";
    Error::new(Kind::Unsupported, format!("{e}: {why}"))
}

/// Says of the entered root what pivot_root(2) refuses of one to enter.
fn propagate(root: &Root, propagation: Propagation) -> Result<()> {
    if propagation.kind == MsFlags::MS_SHARED || propagation.kind == MsFlags::MS_UNBINDABLE {
        let reach = if propagation.recursive { Reach::Tree } else { Reach::Mount };
        mount::set_attributes(root, reach, Attributes::propagation(propagation.bits()))?;
    }
    Ok(())
}

/// Makes `root` the root of this process, and lets go of the host's mounts.
fn pivot(root: &Root, propagation: Propagation) -> Result<()> {
    let old = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    sys(nix::unistd::fchdir(root), || format!("fchdir({})", fd(root)))?;
    // The old root ends up on top of the new one, where "." still leads to it.
    sys(nix::unistd::pivot_root(".", "."), || "pivot_root(\".\", \".\")".to_owned())?;
    if propagation.kind == MsFlags::MS_SHARED {
        // Or the host's own mounts would go with them.
        mount::set_attributes(&old, Reach::Tree, Attributes::propagation(MsFlags::MS_SLAVE.bits()))?;
    }
    drop(old);
    sys(nix::mount::umount2(".", MntFlags::MNT_DETACH), || "umount2(\".\", MNT_DETACH)".to_owned())?;
    Ok(sys(nix::unistd::chdir("/"), || "chdir(\"/\")".to_owned())?)
}
