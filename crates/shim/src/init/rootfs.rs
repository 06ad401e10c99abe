// SPDX-License-Identifier: Apache-2.0
//! The root file system: mounted in the container's own mount namespace only,
//! and entered by pivot_root.

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, MsFlags},
};

use super::overlay;
use crate::{
    kernel::{
        Procfs, SysError, fd,
        mount::{self, Attributes, FileSystem, Reach, attr},
        paths::{self, Root},
        sys,
    },
    runtime::{Error, Kind, Plan, Propagation, Result, Rootfs},
};

/// Mounts the root file system on top of the host's root, or on the directory
/// `shown` where hooks look for it, and where it stays for one that has the
/// host's mounts. Absolute paths still mean the host: this process's root is
/// the mount below.
///
/// `made` is one that has been made before, by somebody with more rights.
pub(super) fn attach(plan: &Plan, shown: Option<&Path>, made: Option<OwnedFd>) -> Result<Root> {
    let host = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let shown = shown.map(|path| paths::open_host(path, OFlag::O_PATH | OFlag::O_DIRECTORY));
    let private = plan.namespaces.has_private_mounts();
    let target = match shown {
        // A bundle whose root is made of layers need not have the directory.
        Some(Err(e)) if e.errno() != Errno::ENOENT => return Err(e.into()),
        Some(Ok(directory)) => Some(directory),
        _ if private => Some(host.try_clone().map_err(|e| SysError::from_io("dup(/)", &e))?),
        // What stays on its own nobody else sees.
        _ => None,
    };
    if private && let Some(target) = &target {
        isolate(&host, target, plan.propagation)?;
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
    let alone = Attributes::propagation(MsFlags::MS_PRIVATE.bits());
    if plan.propagation.kind == MsFlags::MS_SHARED || !private {
        // A copy of a shared mount is its peer: what is mounted in it below
        // would be mounted on the host.
        mount::set_attributes(&tree, Reach::Tree, alone)?;
    }
    if let Some(target) = &target {
        mount::attach(&tree, target)?;
    }
    if !private {
        // On a shared mount it has become one.
        mount::set_attributes(&tree, Reach::Tree, alone)?;
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

/// Enters the new root; mounts that are the host's stay out of it, unless they
/// can't be left (`no_pivot`).
pub(super) fn enter(root: &Root, plan: &Plan, no_pivot: bool) -> Result<()> {
    let private = plan.namespaces.has_private_mounts();
    if private && !no_pivot {
        pivot(root, plan.propagation)?;
        return propagate(root, plan.propagation);
    }
    if private {
        // Where who joins the namespace begins.
        let top = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        match mount::attach(root, &top) {
            // It is there already.
            Err(e) if e.errno() == Errno::ELOOP => {}
            result => result?,
        }
    }
    sys(nix::unistd::fchdir(root), || format!("fchdir({})", fd(root)))?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a container that shares the host's mounts, or has to keep them, can't let go of them"
    )]
    sys(nix::unistd::chroot("."), || "chroot(\".\")".to_owned())?;
    sys(nix::unistd::chdir("/"), || "chdir(\"/\")".to_owned())?;
    if private { propagate(root, plan.propagation) } else { Ok(()) }
}

/// Takes the host's own procfs and sysfs away from a container that keeps the
/// host's mounts below its root. The kernel lets a user namespace mount a
/// whole one only where one can be seen whole: those of the container can't,
/// those that stay behind could.
pub(super) fn cover_host(root: &Root, propagation: Propagation) -> Result<()> {
    if propagation.kind == MsFlags::MS_SHARED {
        // The host keeps its own.
        let host = paths::open_host(Path::new("/"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        mount::set_attributes(&host, Reach::Tree, Attributes::propagation(MsFlags::MS_SLAVE.bits()))?;
    }
    let mounts = Procfs::of_host()?.read_text("self/mountinfo")?;
    let id = mount::id_of(root)?;
    for path in whole_outside(&mounts, id) {
        match nix::mount::umount2(&path, MntFlags::MNT_DETACH) {
            // It was on another that has gone.
            Ok(()) | Err(Errno::ENOENT) => {}
            // In a user namespace it is locked in its place.
            Err(Errno::EINVAL | Errno::EPERM) => {
                let empty = FileSystem::open("tmpfs")?.mount(attr::RDONLY)?;
                mount::attach(empty, paths::open_host(&path, OFlag::O_PATH | OFlag::O_DIRECTORY)?)?;
            }
            result => sys(result, || format!("umount2({path:?}, MNT_DETACH)"))?,
        }
    }
    Ok(())
}

/// Where whole procfs and sysfs are mounted, outside of the mount `root` and
/// what is mounted in it (proc_pid_mountinfo(5)).
fn whole_outside(mountinfo: &str, root: u64) -> Vec<PathBuf> {
    let mut inside = HashSet::from([root]);
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let mut number = || fields.next().and_then(|field| field.parse::<u64>().ok());
        let (Some(id), Some(parent)) = (number(), number()) else { continue };
        // Of a tree the lower mounts are listed first.
        if id == root || inside.contains(&parent) {
            inside.insert(id);
            continue;
        }
        let place = fields.nth(1).zip(fields.next());
        let kind = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next());
        if let (Some(("/", path)), Some("proc" | "sysfs")) = (place, kind) {
            found.push(unescaped(path));
        }
    }
    found
}

/// Octal numbers stand for what would end a field.
fn unescaped(path: &str) -> PathBuf {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (code, text)| path.replace(code, text))
        .into()
}

/// What a mount in a root that isn't mounted itself fails with.
pub(super) fn unless_detached(plan: &Plan, e: Error) -> Error {
    if plan.namespaces.has_private_mounts() || e.kind() != Kind::Os {
        return e;
    }
    let why = "a container in the host's mount namespace, whose root has no directory, needs Linux 6.15";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whole_and_not_the_containers_is_found() {
        let text = "21 1 8:1 / / rw - ext4 /dev/x rw\n\
            22 21 0:5 / /proc rw - proc proc rw\n\
            23 22 0:9 / /proc/sys/fs rw - autofs x rw\n\
            24 21 0:6 / /a\\040b rw shared:3 - sysfs sysfs rw\n\
            25 21 0:5 /sys /part rw - proc proc rw\n\
            40 21 0:7 / / rw - overlay overlay rw\n\
            41 40 0:8 / /proc rw - proc proc rw\n\
            42 41 0:8 /x /proc/x rw - proc proc rw\n";
        assert_eq!(whole_outside(text, 40), [PathBuf::from("/proc"), PathBuf::from("/a b")]);
    }
}
