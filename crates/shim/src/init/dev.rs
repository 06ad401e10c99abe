// SPDX-License-Identifier: Apache-2.0
//! `/dev`: a fresh tmpfs, filled by descriptor before anything can see it
//! (D9).

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{Mode, SFlag, makedev, mknodat},
    unistd::{Gid, Uid, fchownat, symlinkat},
};

use crate::{
    kernel::{
        SysError,
        mount::{self, Attributes, FileSystem, Reach, attr},
        paths::{self, Make, Root},
        sys,
    },
    runtime::{Dev, During as _, Node, Result},
};

/// Links that programs expect (runtime-spec, "Default Devices" and
/// "Dev symbolic links"), and the terminal multiplexer of the container's
/// own devpts.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// How many of the plan's mounts come before `/dev`.
pub(super) fn position(dev: &Dev) -> usize {
    match dev {
        Dev::Fresh { after, .. } => *after,
        Dev::Bound => 0,
    }
}

/// Mounts `/dev`, and returns it; `None` when a mount of the plan does.
pub(super) fn mount(root: &Root, dev: &Dev) -> Result<Option<Root>> {
    let Dev::Fresh { options, attributes, nodes, .. } = dev else { return Ok(None) };
    let file_system = FileSystem::open("tmpfs")?;
    file_system.string("source", "tmpfs")?;
    for (key, value) in options {
        match value {
            Some(value) => file_system.string(key, value)?,
            None => file_system.flag(key)?,
        }
    }
    // Read-only when all is in it ([`finish`]).
    let dev = Root::new(file_system.mount(*attributes & !attr::RDONLY)?);
    for (target, name) in LINKS {
        sys(symlinkat(target, &dev, name), || format!("symlinkat({target:?}, /dev, {name:?})"))?;
    }
    let mut refused = Vec::new();
    for node in nodes {
        if !make_node(&dev, node)? {
            refused.push(node);
        }
    }
    mount::attach(&dev, root.real_directory(Path::new("/dev"))?)?;
    refused.into_iter().try_for_each(|node| bind_node(&dev, node, Path::new("/dev")))?;
    Ok(Some(dev))
}

/// Makes `/dev` read-only where it is to be, once nothing more comes into it.
pub(super) fn finish(dev: Option<&Root>, plan: &Dev) -> Result<()> {
    match (dev, plan) {
        (Some(dev), Dev::Fresh { attributes, .. }) => {
            Ok(mount::set_attributes(dev, Reach::Mount, Attributes::set(attributes & attr::RDONLY))?)
        }
        _ => Ok(()),
    }
}

/// Makes device files outside of /dev, in what the image has there. A file
/// that is there already must be the one that is meant.
pub(super) fn elsewhere(root: &Root, nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let made = make_node(root, node).during(|| format!("make the device /{}", node.path.display()));
        match made {
            Ok(true) => {}
            Ok(false) => bind_node(root, node, Path::new("/"))?,
            Err(e) => match root.handle(&Path::new("/").join(&node.path)) {
                Ok(there) if is_device(&there, node)? => {}
                _ => return Err(e),
            },
        }
    }
    Ok(())
}

/// Makes one device file below `dev`; false when only the host's may make it.
fn make_node(dev: &Root, node: &Node) -> Result<bool> {
    let parent = node.path.parent().unwrap_or(Path::new(""));
    let parent = dev.make(&Path::new("/").join(parent), Make::Directory)?;
    let Some(name) = node.path.file_name() else { return Ok(true) };
    let mode = Mode::from_bits_truncate(node.mode);
    let device = makedev(node.major.into(), node.minor.into());
    match mknodat(&parent, name, node.kind, mode, device) {
        Err(Errno::EPERM) => return Ok(false),
        result => sys(result, || {
            format!("mknodat(/dev, {:?}, {:?}, {}:{})", node.path, node.kind, node.major, node.minor)
        })?,
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
        let result = fchownat(&parent, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW);
        sys(result, || format!("fchownat(/dev, {:?}, {uid}, {gid})", node.path))?;
    }
    Ok(true)
}

/// Binds the host's device file instead, if it is the device that is meant.
/// `prefix` is where the tree `dev` is in the container.
fn bind_node(dev: &Root, node: &Node, prefix: &Path) -> Result<()> {
    let path = prefix.join(&node.path);
    let mount = mount::clone_mount(dev.as_fd(), &path, Reach::Mount)?;
    if !is_device(&mount, node)? {
        return Err(SysError::new(
            format!("{path:?} is not device {}:{}", node.major, node.minor),
            Errno::ENODEV,
        )
        .into());
    }
    Ok(mount::attach(mount, dev.make(&Path::new("/").join(&node.path), Make::File)?)?)
}

fn is_device(file: &OwnedFd, node: &Node) -> Result<bool> {
    let stat = paths::stat(file)?;
    let numbers = makedev(node.major.into(), node.minor.into());
    Ok(paths::kind(&stat) == node.kind && (node.kind == SFlag::S_IFIFO || stat.st_rdev == numbers))
}
