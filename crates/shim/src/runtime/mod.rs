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
mod exec;
pub mod hooks;
mod host;
pub(crate) mod mapped;
mod net_devices;
mod notify;
pub(crate) mod plan;
mod resources;
mod root_mount;
pub mod spec;
pub(crate) mod users;

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

pub(crate) use self::{
    channel::{ToInit, ToShim, await_start, receive_mount, tell_shim, wait_for},
    error::During,
    mapped::FromShim,
    plan::{
        Capabilities, Dev, Execution, IdMaps, Identity, Joining, Mount, Node, Plan, Process, Propagation,
        Range, Rlimit, Rootfs, Source, Writable, capability_names,
    },
};
pub use self::{
    channel::{is_waiting, listen, start},
    container::Container,
    create::{create, resctrl},
    error::{Error, Kind, Result},
    exec::{Bound, Exec, Joined, Target, exec},
    resources::update,
    root_mount::RootMount,
};
pub(crate) use crate::init::passwd::asked as asked_user;
/// What a container's cgroups count.
pub mod stats {
    pub use crate::cgroup::{Device, stats::*};
}
use crate::cgroup::{Group, Layout, Placement};

/// What a container is created from.
#[derive(Debug)]
pub struct Create<'a> {
    /// Its id, for messages and hooks.
    pub id: &'a str,
    /// The directory that relative paths of the specification start from.
    pub bundle: &'a Path,
    /// The OCI specification.
    pub spec: oci_spec::runtime::Spec,
    /// The root file system; empty means the specification's `root.path`.
    pub rootfs: &'a [berth::api::types::Mount],
    /// `user[:group]`, looked up in the container; empty means the numbers of
    /// the specification.
    pub user: &'a str,
    /// The specification's `linux.seccomp`, compiled; empty when it's still to
    /// be done.
    pub filter: &'a [u8],
    /// Where its cgroups are made.
    pub cgroups: &'a Placement,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// How long its first process lives.
    pub lifetime: Lifetime,
    /// So many descriptors from 3 on are handed on to the program, as they
    /// are.
    pub preserve_fds: u32,
    /// Where its keys are kept.
    pub keyring: Keyring,
    /// Moves the root over the host's instead of leaving that: for a host
    /// whose root pivot_root(2) can't leave (a ramdisk), and less safe.
    pub no_pivot: bool,
    /// The first process is ours: it has the program as its child, hands on
    /// signals, reaps, and ends as the program does.
    pub init: bool,
}

/// Whether [`create`] and [`exec`] could carry `spec` out as far as can be
/// known without this host: they find the same wrong before they make anything.
///
/// # Errors
/// `InvalidSpec` and `Unsupported`, naming the field.
pub fn check(spec: &oci_spec::runtime::Spec, bundle: &Path) -> Result<()> {
    plan::plan(spec, bundle, &[], "", &[])?;
    match spec.process() {
        Some(process) => plan::joining::plan(spec, process.clone(), "").map(drop),
        None => Ok(()),
    }
}

/// How long a container's first process lives, and how it's started.
#[derive(Debug)]
pub enum Lifetime {
    /// Until the process that creates it dies, which starts it, too.
    Bound,
    /// As long as it likes; who creates it, starts it.
    Free,
    /// As long as it likes; waits to be started by anybody at a socket made
    /// by [`listen`].
    Waiting(OwnedFd),
}

impl Lifetime {
    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Waiting(socket) => Some(socket.as_fd()),
            Self::Bound | Self::Free => None,
        }
    }
}

/// The session keyring of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyring {
    /// A new one of its own.
    New,
    /// That of the process which creates it.
    Inherited,
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
        /// A line's end is one character: a terminal in front of it makes two.
        plain: bool,
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
    /// Those of this process.
    Inherited,
}

/// Kills what is left of a container whose shim has died, and removes its
/// cgroups. `Ok` when nothing is left.
///
/// # Errors
/// When a process doesn't die, or a cgroup can't be removed.
pub fn cleanup_dead(cgroups: &Placement) -> Result<()> {
    Group::find(&Layout::of_host()?, cgroups).remove()
}
