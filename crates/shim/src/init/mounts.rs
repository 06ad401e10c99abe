// SPDX-License-Identifier: Apache-2.0
//! One mount of the plan: made detached, with its attributes, then moved onto
//! a descriptor of its target.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag};

use super::{copy_up, overlay};
use crate::{
    kernel::{
        self,
        mount::{self, Attributes, FileSystem, Reach, attr},
        paths::{self, Make, Root},
    },
    runtime::{Error, Kind, Mount, Result, Source},
};

/// `mapped` is the source of a bind whose ids the shim has mapped.
pub(super) fn mount(
    root: &Root,
    plan: &Mount,
    mapped: Option<OwnedFd>,
    cgroups: &[(String, PathBuf)],
) -> Result<()> {
    match &plan.source {
        Source::FileSystem { kind, name, options } => new_file_system(root, plan, (kind, name), options),
        Source::Overlay { lower, writable, options } => {
            let mount = overlay::mount(lower, writable.as_ref(), options)?;
            mount::set_attributes(&mount, Reach::Mount, plan.attributes.change())?;
            mount::set_attributes(&mount, Reach::Tree, plan.tree_attributes.change())?;
            mount::attach(&mount, target(root, plan, Make::Directory)?)?;
            propagate(&mount, plan)
        }
        Source::Existing { options } => change(root, plan, options),
        Source::Bind { path, recursive } => bind(root, plan, mapped, path, *recursive),
        Source::Cgroup { unified: false } => cgroup(root, plan, cgroups),
        Source::Cgroup { unified: true } => {
            let is_unified = |(name, _): &&(String, PathBuf)| name.is_empty() || name == "unified";
            let Some((_, directory)) = cgroups.iter().find(is_unified) else {
                return Err(Error::unsupported("mounts[].type \"cgroup2\" on a host without cgroup v2"));
            };
            cgroup(root, plan, &[(String::new(), directory.clone())])
        }
    }
}

/// Changes a mount of the container's. What isn't the root of one the kernel
/// refuses.
fn change(root: &Root, plan: &Mount, options: &[(String, Option<String>)]) -> Result<()> {
    let mount = root.handle(&plan.destination)?;
    mount::set_attributes(&mount, Reach::Mount, plan.attributes.change())?;
    mount::set_attributes(&mount, Reach::Tree, plan.tree_attributes.change())?;
    if !options.is_empty() {
        let file_system = FileSystem::of(&mount)?;
        add_options(&file_system, options)?;
        file_system.reconfigure()?;
    }
    propagate(&mount, plan)
}

/// File systems of the kernel's own making: what is said of the mount is
/// enough, and some of them are shared with other mounts.
const VIRTUAL: [&str; 6] = ["tmpfs", "proc", "sysfs", "mqueue", "devpts", "debugfs"];

fn new_file_system(
    root: &Root,
    plan: &Mount,
    (kind, name): (&str, &str),
    options: &[(String, Option<String>)],
) -> Result<()> {
    let mut options = options.to_vec();
    // A disk that can't be written to can only be mounted as a whole read-only.
    if plan.attributes.set & attr::RDONLY != 0 && !VIRTUAL.contains(&kind) {
        options.push(("ro".to_owned(), None));
    }
    let covered = if kind == "tmpfs" { covered(root, plan)? } else { None };
    if let Some(directory) = &covered
        && !options.iter().any(|(key, _)| key == "mode")
    {
        // An image's /tmp stays everybody's.
        options.push(("mode".to_owned(), Some(format!("{:o}", paths::stat(directory)?.st_mode & 0o7777))));
    }
    let read_only = if plan.copy_up { attr::RDONLY } else { 0 };
    let mount = file_system(kind, name, &options, plan.attributes.set & !read_only)?;
    if plan.copy_up {
        covered.map_or(Ok(()), |directory| copy_up::copy(&directory, &mount))?;
        mount::set_attributes(&mount, Reach::Mount, plan.attributes.change())?;
    }
    mount::set_attributes(&mount, Reach::Tree, plan.tree_attributes.change())?;
    let target = match kind {
        // D8: what is written to these is trusted to arrive there.
        "proc" | "sysfs" => ordinary(root, plan, kind)?,
        _ => target(root, plan, Make::Directory)?,
    };
    mount::attach(&mount, target)?;
    propagate(&mount, plan)
}

/// The directory that a mount is about to cover, if there is one.
fn covered(root: &Root, plan: &Mount) -> Result<Option<OwnedFd>> {
    match root.open(&plan.destination, OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(directory) => Ok(Some(directory)),
        Err(e) if e.errno() == Errno::ENOENT => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn file_system(
    kind: &str,
    name: &str,
    options: &[(String, Option<String>)],
    attributes: u64,
) -> Result<OwnedFd> {
    let file_system = FileSystem::open(kind)?;
    file_system.string("source", name)?;
    add_options(&file_system, options)?;
    Ok(file_system.mount(attributes)?)
}

fn add_options(file_system: &FileSystem, options: &[(String, Option<String>)]) -> kernel::Result<()> {
    options.iter().try_for_each(|(key, value)| match value {
        Some(value) => file_system.string(key, value),
        None => file_system.flag(key),
    })
}

fn bind(root: &Root, plan: &Mount, mapped: Option<OwnedFd>, source: &Path, recursive: bool) -> Result<()> {
    let mount = match mapped {
        Some(mapped) => mapped,
        None => match mount::clone_mount(root, source, if recursive { Reach::Tree } else { Reach::Mount }) {
            // In the words that callers of runc look for.
            Err(e) if e.errno() == Errno::ENOENT => {
                let why = format!("stat {}: no such file or directory", source.display());
                return Err(Error::new(Kind::InvalidSpec, why));
            }
            result => result?,
        },
    };
    mount::set_attributes(&mount, Reach::Mount, plan.attributes.change())?;
    mount::set_attributes(&mount, Reach::Tree, plan.tree_attributes.change())?;
    let is_proc = plan.destination == Path::new("/proc");
    if is_proc && !(paths::is_procfs(&mount)? && paths::stat(&mount)?.st_ino == paths::PROC_ROOT) {
        return Err(Error::invalid("mounts: /proc: only a proc file system may be mounted there"));
    }
    let make = if paths::is_directory(&mount)? { Make::Directory } else { Make::File };
    // Without links, as for sysfs: a directory of the host stands in for it.
    let target = if is_proc || plan.destination == Path::new("/sys") {
        ordinary(root, plan, if is_proc { "proc" } else { "sysfs" })?
    } else {
        target(root, plan, make)?
    };
    mount::attach(&mount, target)?;
    propagate(&mount, plan)
}

/// The target of a file system that no link may stand in for.
fn ordinary(root: &Root, plan: &Mount, kind: &str) -> Result<OwnedFd> {
    match root.real_directory(&plan.destination) {
        Err(e) if matches!(e.errno(), Errno::ELOOP | Errno::ENOTDIR) => {
            Err(Error::invalid(format!("filesystem \"{kind}\" must be mounted on ordinary directory: {e}")))
        }
        result => Ok(result?),
    }
}

/// The target of a mount, made if it is missing. The plan has judged its name
/// (D8); this judges where the links of an image lead.
fn target(root: &Root, plan: &Mount, make: Make) -> Result<OwnedFd> {
    let target = root.make(&plan.destination, make)?;
    if paths::is_procfs(&target)? && !plan.destination.starts_with("/proc") {
        return Err(Error::invalid("its name leads into /proc, where nothing may be mounted"));
    }
    Ok(target)
}

/// Said of the mount in its place: what it is attached to would change it.
fn propagate(mount: &OwnedFd, plan: &Mount) -> Result<()> {
    for propagation in &plan.propagation {
        let reach = if propagation.recursive { Reach::Tree } else { Reach::Mount };
        mount::set_attributes(mount, reach, Attributes::propagation(propagation.bits()))?;
    }
    Ok(())
}

/// The container's own cgroups: on v2 its directory, on v1 a directory for
/// each hierarchy that it is in. The kernel shows each as the root of its
/// hierarchy once the cgroup namespace is entered.
fn cgroup(root: &Root, plan: &Mount, cgroups: &[(String, PathBuf)]) -> Result<()> {
    let own = |directory: &Path| -> kernel::Result<OwnedFd> {
        let mount = mount::clone_mount(root, directory, Reach::Mount)?;
        mount::set_attributes(&mount, Reach::Mount, plan.attributes.change())?;
        Ok(mount)
    };
    let target = target(root, plan, Make::Directory)?;
    if let [(name, directory)] = cgroups
        && name.is_empty()
    {
        return Ok(mount::attach(own(directory)?, target)?);
    }
    let options = [("mode".to_owned(), Some("755".to_owned()))];
    let hierarchies = file_system("tmpfs", "tmpfs", &options, plan.attributes.set & !attr::RDONLY)?;
    let inside = Root::new(hierarchies);
    let fill = || -> kernel::Result<()> {
        cgroups.iter().try_for_each(|(name, directory)| {
            let target = inside.make(Path::new(name), Make::Directory)?;
            mount::attach(own(directory)?, target)
        })
    };
    let protect = || mount::set_attributes(&inside, Reach::Mount, plan.attributes.change());
    match fill() {
        // Nothing can be mounted in what isn't mounted itself before Linux 6.15.
        Err(e) if e.errno() == Errno::EINVAL => {
            mount::attach(&inside, target)?;
            fill()?;
            Ok(protect()?)
        }
        result => {
            result?;
            // And what is mounted in such a thing can't be changed any more.
            protect()?;
            Ok(mount::attach(&inside, target)?)
        }
    }
}
