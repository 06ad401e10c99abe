// SPDX-License-Identifier: Apache-2.0
//! The one mount that the host's table shows of a container: the root of one
//! that has asked for the host's mount namespace. What it stands for ends with
//! the container, and so does it.

use std::path::{Path, PathBuf};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MntFlags, umount2},
};
use oci_spec::runtime::{LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};

use super::Result;
use crate::kernel::{mount, paths, sys};

/// Written down before there is the mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootMount {
    path: PathBuf,
    /// The mount that the directory is in as long as nothing is on top of it.
    below: u64,
}

impl RootMount {
    /// Where the root of a container of `spec` will be mounted; `None` for one
    /// with a mount namespace, and for a root without a directory.
    ///
    /// # Errors
    /// When the directory can't be looked at.
    pub fn of(spec: &Spec, root: &Path) -> Result<Option<Self>> {
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        if namespaces.into_iter().flatten().any(|n| n.typ() == LinuxNamespaceType::Mount) {
            return Ok(None);
        }
        match paths::open_host(root, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Ok(directory) => Ok(Some(Self { path: root.to_owned(), below: mount::id_of(&directory)? })),
            Err(e) if e.errno() == Errno::ENOENT => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes it away, with all that is mounted in it, if it's there.
    ///
    /// # Errors
    /// Those of umount2(2).
    pub fn remove(&self) -> Result<()> {
        let directory = match paths::open_host(&self.path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            result => result?,
        };
        if mount::id_of(&directory)? == self.below {
            return Ok(());
        }
        drop(directory);
        match umount2(&self.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // The whole of what it was in has gone and come again.
            Err(Errno::EINVAL) => Ok(()),
            result => Ok(sys(result, || format!("umount2({:?}, MNT_DETACH)", self.path))?),
        }
    }
}
