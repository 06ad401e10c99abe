// SPDX-License-Identifier: Apache-2.0
//! A container that has been created.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::{
    errno::Errno,
    sys::wait::{Id, WaitPidFlag, waitid},
};

use oci_spec::runtime::LinuxResources;

use super::{
    channel::{self, ToInit},
    error::{Error, Kind, Result},
    hooks::{Hooks, Moment},
    root_mount::RootMount,
};
use crate::{
    cgroup::{Group, Resctrl, Stats},
    kernel::{process, process::Child, sys},
};

/// A container: its first process and its cgroups.
///
/// Dropping it leaves both as they are; [`Container::cleanup`] ends them.
#[derive(Debug)]
pub struct Container {
    child: Child,
    /// To init, until it has executed its program.
    socket: Option<OwnedFd>,
    console: Option<OwnedFd>,
    group: Group,
    hooks: Hooks,
    resctrl: Option<Resctrl>,
    root_mount: Option<RootMount>,
    warnings: Vec<String>,
}

impl Container {
    pub(super) fn new(
        child: Child,
        socket: OwnedFd,
        group: Group,
        hooks: Hooks,
        warnings: Vec<String>,
    ) -> Self {
        Self {
            child,
            socket: Some(socket),
            console: None,
            group,
            hooks,
            resctrl: None,
            root_mount: None,
            warnings,
        }
    }

    /// The pid of its first process, in the shim's pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// The pidfd of its first process: readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// The master side of its terminal, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// What the specification asked for and the host could only do in part.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Lets its first process execute the program, and runs the hooks of the
    /// start.
    ///
    /// # Errors
    /// `ExecNotFound` and `ExecNotPermitted` when the program can't be
    /// executed: the process has ended then, and waits to be reaped.
    /// `NotRunning` when it has been started before. That of a hook: the
    /// container has been killed then, and is still to be cleaned up.
    pub fn start(&mut self) -> Result<()> {
        let Some(socket) = self.socket.take() else {
            return Err(Error::new(Kind::NotRunning, "the container has been started already"));
        };
        if channel::tell_init(&socket, ToInit::Start).is_err() {
            return Err(Error::new(Kind::NotRunning, "the container's first process has ended"));
        }
        channel::executed(&socket, &self.hooks)?;
        self.poststart()
    }

    fn poststart(&self) -> Result<()> {
        self.hooks.run(Moment::Poststart, Some(self.pid())).map_err(|e| {
            match self.kill(libc::SIGKILL, true) {
                Err(second) if second.kind() != Kind::NotRunning => {
                    Error::new(e.kind(), format!("{e} (and then: {second})"))
                }
                _ => e,
            }
        })
    }

    /// Runs the hooks of the end, once it is cleaned up. What failed is for
    /// the log: the specification lets nothing depend on it.
    #[must_use]
    pub fn poststop(&self) -> Vec<String> {
        self.hooks.run_poststop()
    }

    /// Sends `signal` to the first process, or to `all`.
    ///
    /// # Errors
    /// `NotRunning` when the first process has ended.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        if all {
            return self.group.signal(signal);
        }
        match process::pidfd_send_signal(self.pidfd(), signal) {
            Err(e) if e.errno() == Errno::ESRCH => {
                return Err(Error::new(Kind::NotRunning, "the container's first process has ended"));
            }
            result => result?,
        }
        if signal == libc::SIGKILL { self.group.let_die() } else { Ok(()) }
    }

    /// Freezes all its processes.
    ///
    /// # Errors
    /// `Unsupported` on a host without cgroup v2 and without v1's freezer.
    pub fn pause(&self) -> Result<()> {
        self.group.freeze(true)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub fn resume(&self) -> Result<()> {
        self.group.freeze(false)
    }

    /// Whether the kernel has killed one of its processes for want of memory.
    /// Counted by its cgroup: ask before [`Self::cleanup`].
    #[must_use]
    pub fn oom_killed(&self) -> bool {
        self.group.oom_killed()
    }

    /// What it uses, as its cgroups count it.
    ///
    /// # Errors
    /// When its cgroups are gone.
    pub fn stats(&self) -> Result<Stats> {
        self.group.stats()
    }

    /// Changes its limits; what isn't set stays. Returns warnings.
    ///
    /// # Errors
    /// Those of [`super::update`].
    pub fn update(&mut self, resources: &LinuxResources) -> Result<Vec<String>> {
        super::update(&mut self.group, resources)
    }

    /// All its processes, in the shim's pid namespace.
    ///
    /// # Errors
    /// When its cgroup can't be read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        self.group.pids()
    }

    /// Kills what is left of it and removes its cgroups; may be repeated. The
    /// first process is still to be reaped.
    ///
    /// # Errors
    /// When a process doesn't die within ten seconds.
    pub fn cleanup(&mut self) -> Result<()> {
        // Init is killed rather than left to find the socket closed.
        self.group.remove()?;
        if let Some(resctrl) = &self.resctrl {
            resctrl.remove()?;
        }
        if let Some(mount) = &self.root_mount {
            mount.remove()?;
        }
        self.socket = None;
        Ok(())
    }

    /// Ends a container that nobody will hear of, its first process reaped.
    ///
    /// # Errors
    /// As [`Self::cleanup`].
    pub fn destroy(&mut self) -> Result<()> {
        match process::pidfd_send_signal(self.pidfd(), libc::SIGKILL) {
            Err(e) if e.errno() == Errno::ESRCH => {}
            result => result?,
        }
        self.group.let_die()?;
        loop {
            match waitid(Id::PIDFd(self.pidfd()), WaitPidFlag::WEXITED) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                result => {
                    sys(result, || format!("waitid({})", self.pid()))?;
                    break;
                }
            }
        }
        self.cleanup()
    }

    pub(super) fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Has been made for it, and is removed with it.
    pub(super) fn keep_resctrl(&mut self, made: Resctrl) {
        self.resctrl = Some(made);
    }

    /// As [`Self::keep_resctrl`].
    pub(super) fn keep_root_mount(&mut self, mount: Option<RootMount>) {
        self.root_mount = mount;
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// The socket to init, while it has not been started.
    ///
    /// # Errors
    /// `NotRunning` when it has been.
    pub(super) fn socket(&self) -> Result<BorrowedFd<'_>> {
        let started = || Error::new(Kind::NotRunning, "the container has been started already");
        self.socket.as_ref().map(|socket| socket.as_fd()).ok_or_else(started)
    }

    pub(super) fn set_console(&mut self, master: OwnedFd) {
        self.console = Some(master);
    }

    pub(super) fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }
}
