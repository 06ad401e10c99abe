// SPDX-License-Identifier: Apache-2.0
//! The OCI runtime: a container is created (everything but execve), started,
//! signalled and cleaned up. There is no helper program: the shim clones
//! itself, and the copy sets itself up ([`crate::init`]).
//!
//! All calls are synchronous, and for a process with one thread. Reaping is
//! the caller's: it waits for [`Container::pidfd`]. What a container's
//! standard streams and its exit mean is not known here.

mod channel;
mod container;
mod create;
mod error;
pub mod hooks;
mod plan;
pub mod spec;

use std::{os::fd::OwnedFd, path::Path};

use berth::ids::{ContainerId, Namespace};

pub(crate) use self::{
    channel::{ToInit, ToShim, tell_shim, wait_for},
    error::During,
    plan::{
        Capabilities, Dev, Execution, Identity, Mount, Node, Plan, Process, Propagation, Rlimit, Rootfs,
        Source, capability_names,
    },
};
pub use self::{
    container::Container,
    create::create,
    error::{Error, Kind, Result},
};
use crate::cgroup::{Group, Layout, Placement};

/// What a container is created from.
#[derive(Debug)]
pub struct Create<'a> {
    /// Its id.
    pub id: &'a ContainerId,
    /// Its namespace: id and namespace name its cgroups.
    pub namespace: &'a Namespace,
    /// The directory that relative paths of the specification start from.
    pub bundle: &'a Path,
    /// The OCI specification.
    pub spec: oci_spec::runtime::Spec,
    /// The root file system; empty means the specification's `root.path`.
    pub rootfs: &'a [berth::api::types::Mount],
    /// `user[:group]`, looked up in the container; empty means the numbers of
    /// the specification.
    pub user: &'a str,
    /// Above the container's cgroups, in every hierarchy.
    pub cgroup_parent: &'a str,
    /// Standard input, output and error.
    pub stdio: Stdio,
}

/// The standard streams of a container's first process.
#[derive(Debug)]
pub enum Stdio {
    /// A new terminal of the container, of this size.
    Terminal {
        /// Lines; 0 for unknown.
        rows: u16,
        /// Characters a line; 0 for unknown.
        columns: u16,
    },
    /// The container's ends of pipes, or other files.
    Pipes {
        /// Readable.
        stdin: OwnedFd,
        /// Writable.
        stdout: OwnedFd,
        /// Writable.
        stderr: OwnedFd,
    },
}

/// Kills what is left of a container whose shim has died, and removes its
/// cgroups. `Ok` when nothing is left.
///
/// # Errors
/// When a process doesn't die, or a cgroup can't be removed.
pub fn cleanup_dead(
    namespace: &Namespace,
    id: &ContainerId,
    _bundle: &Path,
    cgroup_parent: &str,
) -> Result<()> {
    let placement = Placement::below(cgroup_parent, &group_name(namespace, id))?;
    Group::find(&Layout::of_host()?, &placement).remove()
}

/// The name of a container's cgroups below their parent.
fn group_name(namespace: &Namespace, id: &ContainerId) -> String {
    format!("{namespace}-{id}")
}
