// SPDX-License-Identifier: Apache-2.0
//! Takes the wait out of the first move into a v1 cgroup. The kernel lets a
//! move begin only when no process is within fork or exit, which it knows
//! after an RCU grace period: milliseconds, for the first move in a while. So
//! a child makes a move that moves nothing, while its parent has other things
//! to do; called by the verbs of `berth-oci` that make a process.

use std::{convert::Infallible, os::fd::AsFd as _, path::Path};

use nix::sys::wait::{Id, WaitPidFlag, waitid};

use super::fs;
use crate::kernel::{Procfs, process, process::Child};

/// The name of a hierarchy that every v1 host has, and where it's mounted.
const HIERARCHY: (&str, &str) = (":devices:", "/sys/fs/cgroup/devices");

/// A move that is on its way. Reaped when it goes out of scope.
#[derive(Debug)]
pub struct Primed(Option<Child>);

/// Begins the move, on a host with v1 hierarchies.
#[must_use]
pub fn prime() -> Primed {
    if !Path::new(HIERARCHY.1).join("cgroup.procs").exists() {
        return Primed(None);
    }
    // Without it the next move takes its time, that is all.
    Primed(process::fork(stay).ok())
}

/// Moves this process to where it is.
fn stay() -> Infallible {
    let text = Procfs::of_host().and_then(|proc| proc.read_text("self/cgroup")).unwrap_or_default();
    if let Some(own) = text.lines().find_map(|line| Some(line.split_once(HIERARCHY.0)?.1)) {
        let dir = Path::new(HIERARCHY.1).join(own.trim_start_matches('/'));
        // Not allowed, or mounted elsewhere: as above.
        let _ = fs::try_write(&dir, "cgroup.procs", "0");
    }
    process::exit_now(0)
}

impl Drop for Primed {
    fn drop(&mut self) {
        if let Some(child) = &self.0 {
            // Somebody who reaps all children may have been faster.
            let _ = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_nothing_and_leaves_no_child() {
        let cgroups = || std::fs::read_to_string("/proc/self/cgroup").expect("read");
        let before = cgroups();
        let primed = prime();
        let pid = primed.0.as_ref().map(|child| child.pid);
        drop(primed);
        assert_eq!(cgroups(), before);
        assert!(pid.is_none_or(|pid| !Path::new("/proc").join(pid.to_string()).exists()));
    }
}
