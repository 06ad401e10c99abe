// SPDX-License-Identifier: Apache-2.0
//! Fits a plan to the host: what a specification alone doesn't tell. Before
//! anything is made.

use std::path::Path;

use nix::{
    fcntl::{AT_FDCWD, AtFlags, OFlag},
    sched::CloneFlags,
    unistd::{AccessFlags, faccessat},
};

use super::{
    error::{Error, Result},
    plan::Plan,
};
use crate::kernel::{Procfs, paths};

/// There where SELinux is.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// # Errors
/// `InvalidSpec` for a change of a namespace that is this process's own.
pub(super) fn fit(plan: &mut Plan, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(label) = &plan.mount_label {
        // Without SELinux nothing is decided by labels, and `context` is no
        // option of any file system.
        if faccessat(AT_FDCWD, SELINUX, AccessFlags::F_OK, AtFlags::empty()).is_ok() {
            plan.label_mounts();
        } else {
            warnings.push(format!("linux.mountLabel: {label:?} is discarded: the host has no SELinux"));
        }
    }
    for (kind, field) in plan.changes() {
        let joined = plan.namespaces.join.iter().find(|join| join.kind == kind);
        if let Some(join) = joined.filter(|_| !plan.namespaces.new.contains(kind))
            && is_own(kind, &join.path)?
        {
            let path = join.path.display();
            return Err(Error::invalid(format!("{field}: {path} is the host's own namespace")));
        }
    }
    Ok(())
}

/// Whether `path` is the namespace that this process is in.
fn is_own(kind: CloneFlags, path: &Path) -> Result<bool> {
    let own = match kind {
        CloneFlags::CLONE_NEWNET => "self/ns/net",
        CloneFlags::CLONE_NEWIPC => "self/ns/ipc",
        _ => "self/ns/uts",
    };
    let identity = |namespace| paths::stat(namespace).map(|stat| (stat.st_dev, stat.st_ino));
    let own = identity(Procfs::of_host()?.follow(own, OFlag::O_RDONLY)?)?;
    Ok(own == identity(paths::open_host(path, OFlag::O_RDONLY)?)?)
}
