// SPDX-License-Identifier: Apache-2.0
//! The root file system: mounted in the container's own mount namespace only,
//! and entered by pivot_root.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, MsFlags},
};

use crate::{
    kernel::{
        self, SysError, fd,
        mount::{self, Attributes, FileSystem, MAX_OPTION, Reach, attr},
        paths::{self, Root},
        sys,
    },
    runtime::{Error, Kind, Plan, Propagation, Result, Rootfs},
};

/// Mounts the root file system on top of the host's root, or on the directory
/// `shown` where hooks look for it. Absolute paths still mean the host: this
/// process's root is the mount below.
pub(super) fn attach(plan: &Plan, shown: Option<&Path>) -> Result<Root> {
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
    let tree = match &plan.rootfs {
        Rootfs::Overlay { lower, writable, options, .. } => {
            let directories = writable.as_ref().map(|w| (w.upper.as_path(), w.work.as_path()));
            overlay(lower, directories, options)?
        }
        Rootfs::Bind { source, recursive } => {
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

/// A detached overlay.
fn overlay(
    lower: &[PathBuf],
    directories: Option<(&Path, &Path)>,
    options: &[(String, Option<String>)],
) -> Result<OwnedFd> {
    let one_by_one = || {
        overlay_of(directories, options, |file_system, open| {
            lower.iter().try_for_each(|path| file_system.string("lowerdir+", name(path, open)?))
        })
    };
    match one_by_one() {
        // What Linux before 6.5 doesn't know it says only now.
        Err(e) if e.errno() == Errno::EINVAL => match overlay_at_once(lower, directories, options) {
            Err(second) if second.errno() == Errno::EINVAL => Err(e.into()),
            result => Ok(result?),
        },
        result => Ok(result?),
    }
}

/// All layers in one option, as every kernel takes them. It is short, so they
/// are called by their descriptors' numbers, from the directory of these.
fn overlay_at_once(
    lower: &[PathBuf],
    directories: Option<(&Path, &Path)>,
    options: &[(String, Option<String>)],
) -> kernel::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let layers =
        lower.iter().map(|path| paths::open_host(path, flags)).collect::<kernel::Result<Vec<_>>>()?;
    let numbers: Vec<_> = layers.iter().map(|layer| layer.as_raw_fd().to_string()).collect();
    let here = paths::open_host(Path::new("."), flags)?;
    let descriptors = paths::open_host(Path::new("/proc/self/fd"), flags)?;
    sys(nix::unistd::fchdir(&descriptors), || "fchdir(/proc/self/fd)".to_owned())?;
    let made =
        overlay_of(directories, options, |file_system, _| file_system.string("lowerdir", numbers.join(":")));
    sys(nix::unistd::fchdir(&here), || "fchdir(.)".to_owned())?;
    made
}

fn overlay_of(
    directories: Option<(&Path, &Path)>,
    options: &[(String, Option<String>)],
    add_lower: impl FnOnce(&FileSystem, &mut Vec<OwnedFd>) -> kernel::Result<()>,
) -> kernel::Result<OwnedFd> {
    let file_system = FileSystem::open("overlay")?;
    // Names that fsconfig can't take are given as descriptors' names; these
    // stay open until the mount is made.
    let mut open = Vec::new();
    file_system.string("source", "overlay")?;
    add_lower(&file_system, &mut open)?;
    if let Some((upper, work)) = directories {
        file_system.string("upperdir", name(upper, &mut open)?)?;
        file_system.string("workdir", name(work, &mut open)?)?;
    }
    for (key, value) in options {
        match value {
            Some(value) => file_system.string(key, value)?,
            None => file_system.flag(key)?,
        }
    }
    file_system.mount(0)
}

/// `path`, or `/proc/self/fd/N` for one that is too long for fsconfig or
/// contains what overlayfs gives a meaning.
fn name(path: &Path, open: &mut Vec<OwnedFd>) -> kernel::Result<PathBuf> {
    let text = path.as_os_str();
    let special = |byte: &u8| matches!(byte, b'\\' | b':' | b',');
    if text.len() <= MAX_OPTION && !text.as_encoded_bytes().iter().any(special) {
        return Ok(path.to_owned());
    }
    let directory = paths::open_host(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
    open.push(directory);
    Ok(name.into())
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
