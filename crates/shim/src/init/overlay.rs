// SPDX-License-Identifier: Apache-2.0
//! A root file system of layers: mounted by init, or by the shim where init
//! has too few rights for it.

use std::{
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{errno::Errno, fcntl::OFlag};

use crate::{
    kernel::{
        self, Procfs,
        mount::{FileSystem, MAX_OPTION},
        paths, sys,
    },
    runtime::{Result, Writable},
};

/// A detached overlay.
///
/// # Errors
/// Those of overlayfs, in its words.
pub(crate) fn mount(
    lower: &[PathBuf],
    writable: Option<&Writable>,
    options: &[(String, Option<String>)],
) -> Result<OwnedFd> {
    let directories = writable.map(|w| (w.upper.as_path(), w.work.as_path()));
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
    let descriptors = Procfs::of_host()?.open("self/fd", flags)?;
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
    Procfs::of_host()?;
    let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
    open.push(directory);
    Ok(name.into())
}
