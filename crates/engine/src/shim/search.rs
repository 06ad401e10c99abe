// SPDX-License-Identifier: Apache-2.0
//! Looking for shims among all processes: those that no record speaks of are
//! found by their working directory, which is their bundle, there or removed.
//! Everything here blocks.

use std::{
    collections::HashSet,
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use berth::{bootstrap, ids::ContainerId};

use crate::{
    error::{Context as _, Result},
    kernel::pidfd,
};

/// A shim that lives.
#[derive(Debug)]
pub struct Shim {
    /// In the engine's pid namespace.
    pub pid: u32,
    /// The process.
    pub pidfd: OwnedFd,
    /// Its working directory.
    pub bundle: PathBuf,
    parent: u32,
}

impl Shim {
    /// The container that it is for; `None` when its bundle has no such name.
    #[must_use]
    pub fn container(&self) -> Option<ContainerId> {
        self.bundle.file_name()?.to_str()?.parse().ok()
    }

    /// Kills it. One that has ended is fine.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2).
    pub fn kill(&self) -> Result<()> {
        match pidfd::signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e).context("kill a shim"),
            _ => Ok(()),
        }
    }
}

/// The shims whose bundle is, or is below, `path`.
///
/// # Errors
/// Those of procfs.
pub fn below(path: &Path) -> Result<Vec<Shim>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("list processes")? {
        let name = entry.context("list processes")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        found.extend(look(pid, path));
    }
    // A process that is to become a container's first one looks like its shim
    // until it executes.
    let pids: HashSet<u32> = found.iter().map(|shim| shim.pid).collect();
    found.retain(|shim| !pids.contains(&shim.parent));
    Ok(found)
}

/// The process, if it is a shim whose working directory is one of our bundles.
fn look(pid: u32, bundles: &Path) -> Option<Shim> {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let exe = fs::read_link(proc.join("exe")).ok()?;
    if !exe.as_os_str().to_str()?.starts_with("/memfd:berth-shim") {
        return None;
    }
    let pidfd = pidfd::open(pid).ok()?;
    // Read after the process was opened, confirmed after it was read.
    let bundle = working_directory(&proc)?;
    let cmdline = fs::read(proc.join("cmdline")).ok()?;
    let stat = fs::read_to_string(proc.join("stat")).ok()?;
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    pidfd::signal(pidfd.as_fd(), 0).ok()?;
    let serves = cmdline.split(|b| *b == 0).nth(1) == Some(bootstrap::SERVE.as_bytes());
    let ended = pidfd::has_ended(pidfd.as_fd()).ok()?;
    (serves && !ended && bundle.starts_with(bundles)).then_some(Shim { pid, pidfd, bundle, parent })
}

/// A process's working directory; that of a removed one is its last name, which
/// the kernel marks (proc_pid_cwd(5)).
fn working_directory(proc: &Path) -> Option<PathBuf> {
    let cwd = fs::read_link(proc.join("cwd")).ok()?;
    let last_name = cwd.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
    Some(last_name.unwrap_or(cwd))
}
