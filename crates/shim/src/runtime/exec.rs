// SPDX-License-Identifier: Apache-2.0
//! A process that joins a container: the caller's half. One clone3, no helper
//! program: the copy of this process goes into the container's namespaces
//! ([`crate::init::join`]) and executes.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::{Pid, geteuid},
};
use oci_spec::runtime::{Process as OciProcess, Spec};

use super::{
    Keyring, Stdio,
    channel::{self, ToInit, ToShim},
    error::{During as _, Error, Kind, Result},
    hooks::{Hooks, Moment, State},
    notify,
    plan::{Joining, joining},
    users,
};
use crate::{
    cgroup::{Group, Layout, Placement},
    init::join::{self, Setup},
    kernel::{SysError, paths, process, process::Child, socket, sys},
};

/// How long it may take from clone3 to execve.
const EXECUTED_WITHIN: Duration = Duration::from_secs(30);

/// A container that runs.
#[derive(Debug)]
pub struct Target<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its bundle.
    pub bundle: &'a Path,
    /// The pid of its first process, in our pid namespace.
    pub pid: u32,
    /// The same for ever.
    pub pidfd: BorrowedFd<'a>,
    /// What it was created from.
    pub spec: &'a Spec,
    /// Where its cgroups are.
    pub cgroups: &'a Placement,
}

/// A process to be started in a container.
#[derive(Debug)]
pub struct Exec<'a> {
    /// Where.
    pub target: Target<'a>,
    /// What. Rights that it doesn't speak of are those of the container's
    /// first process.
    pub process: OciProcess,
    /// `user[:group]`, looked up in the container; empty means the numbers of
    /// `process`.
    pub user: &'a str,
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// Dies with the process that starts it.
    pub bound: Bound,
    /// So many descriptors from 3 on are handed on to the program.
    pub preserve_fds: u32,
    /// Where its keys are kept.
    pub keyring: Keyring,
    /// The name of a cgroup of its own, below the container's; none for the
    /// container's. Only where there is a v2 tree.
    pub leaf: Option<&'a str>,
    /// Cgroups that are there below the container's, to be in instead: a
    /// controller of version 1, or nothing for all hierarchies, and the path.
    pub inside: &'a [(String, PathBuf)],
}

/// Whether a process lives on without who has started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// It is killed then.
    ToUs,
    /// It lives on.
    Free,
}

/// A process in a container that isn't its first.
#[derive(Debug)]
pub struct Joined {
    child: Child,
    console: Option<OwnedFd>,
    /// Its own cgroup.
    leaf: Option<PathBuf>,
    warnings: Vec<String>,
}

/// Starts a process in a container: when this returns, its program runs.
///
/// # Errors
/// `NotRunning` when the container has ended; `ExecNotFound` and
/// `ExecNotPermitted` when the program can't be executed; `InvalidSpec`.
/// Nothing is left of the process then.
pub fn exec(request: Exec<'_>) -> Result<Joined> {
    let Exec { target, process, user, stdio, bound, preserve_fds, keyring, leaf, inside } = request;
    let plan = joining::plan(target.spec, process, user)?;
    let state = Hooks::of(target.spec, target.id, target.bundle)?.state(Moment::Poststart, Some(target.pid));
    super::create::check_stdio(plan.process.terminal, &stdio)?;
    let stdio = super::create::with_console_size(stdio, plan.process.console_size);
    let group = Group::find(&Layout::of_host()?, target.cgroups).inside(inside)?;
    let leaf = leaf.map(|name| group.make_leaf(name)).transpose()?.flatten();
    let (ours, theirs) = socket::pair()?;
    let container = target.pidfd.try_clone_to_owned().map_err(|e| SysError::from_io("dup(pidfd)", &e))?;
    let setup = Setup {
        plan: &plan,
        socket: theirs,
        stdio,
        bound,
        preserved: preserve_fds,
        keyring,
        container,
        pid: target.pid,
        is_among: false,
    };
    let child = {
        let _processors = Processors::begin_on(&plan)?;
        if plan.namespaces.contains(CloneFlags::CLONE_NEWUSER) && !geteuid().is_root() {
            clone_among(setup)
        } else {
            let _pid_namespace = JoinedPid::enter(&plan, target.pidfd)?;
            clone_into(&group, leaf.as_deref(), target.pid, || join::run(setup))
        }
        .map_err(|e| if inside.is_empty() { e } else { e.during("adding pid of the process to cgroups") })
    };
    let child = child.inspect_err(|_| remove(leaf.as_deref()))?;
    let mut joined = Joined { child, console: None, leaf, warnings: Vec::new() };
    match follow(&mut joined, &plan, &group, &ours, &state) {
        Ok(()) => Ok(joined),
        Err(e) => {
            joined.abandon();
            Err(if process::is_running(target.pidfd)? { e } else { ended() })
        }
    }
}

fn ended() -> Error {
    Error::new(Kind::NotRunning, "the container's first process has ended")
}

/// Clones a process which is ours, by way of one among the container's users.
fn clone_among(setup: Setup<'_>) -> Result<Child> {
    let (ours, theirs) = socket::pair()?;
    let between = process::clone3(0, None, move || join::run_among(theirs, setup))?;
    users::sibling(&between, &ours, EXECUTED_WITHIN)
}

/// Clones into the v2 cgroup: its own, else the container's, else the one that
/// the container's first process has moved itself to, because a container
/// that has made cgroups of its own can't have processes above them.
fn clone_into(
    group: &Group,
    leaf: Option<&Path>,
    pid: u32,
    child: impl FnOnce() -> std::convert::Infallible,
) -> Result<Child> {
    let open = |path: &Path| paths::open_host(path, OFlag::O_PATH | OFlag::O_DIRECTORY);
    let cgroup = match leaf {
        Some(leaf) => Some(open(leaf)?),
        None => group.enterable(pid)?.map(|path| open(&path)).transpose()?,
    };
    Ok(process::clone3(0, cgroup.as_ref().map(|fd| fd.as_fd()), child)?)
}

/// Does what only the caller can do for the process, until its program runs.
fn follow(joined: &mut Joined, plan: &Joining, group: &Group, socket: &OwnedFd, state: &State) -> Result<()> {
    if let Some(score) = plan.process.oom_score_adj
        && let Some(warning) = super::create::set_oom_score(joined.pid(), score)?
    {
        joined.warnings.push(warning);
    }
    group.attach(joined.pid()).during(|| format!("adding pid {} to cgroups", joined.pid()))?;
    if plan.affinity.initial.is_empty() {
        super::create::run_anywhere(joined.pid())?;
    }
    let deadline = Instant::now() + EXECUTED_WITHIN;
    // One that has died already has left a message that says why.
    let _ = channel::tell_init(socket, ToInit::CgroupReady);
    loop {
        match channel::from_init(socket, deadline)? {
            ToShim::Warning(text) => joined.warnings.push(text),
            ToShim::Console(master) => joined.console = Some(master),
            ToShim::Created => {
                // As above.
                let _ = channel::tell_init(socket, ToInit::Start);
            }
            ToShim::End => return Ok(()),
            ToShim::Failed(e) => return Err(e),
            ToShim::Listener(number) => {
                let listener = plan.seccomp.as_ref().and_then(|program| program.listener.as_ref());
                let listener = listener.ok_or_else(|| Error::new(Kind::Os, "there is no listener"))?;
                notify::hand_over(listener, joined.pid(), joined.pidfd(), number, state)?;
                // As above.
                let _ = channel::tell_init(socket, ToInit::ListenerTaken);
            }
            ToShim::Made(_) | ToShim::HooksDue => {
                return Err(Error::new(Kind::Os, "there are no hooks of an exec"));
            }
        }
    }
}

impl Joined {
    /// Its pid, in our pid namespace.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid
    }

    /// Its pidfd: readable when it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// The master side of its terminal, once.
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    /// What was asked for and could only be done in part.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Sends `signal` to it, or to all that it has started, where it has a
    /// cgroup of its own and the signal is SIGKILL.
    ///
    /// # Errors
    /// `NotRunning` when it has ended.
    pub fn kill(&self, signal: i32, all: bool) -> Result<()> {
        if let Some(leaf) = self.leaf.as_deref().filter(|_| all && signal == libc::SIGKILL) {
            return crate::cgroup::kill_leaf(leaf);
        }
        match process::pidfd_send_signal(self.pidfd(), signal) {
            Err(e) if e.errno() == Errno::ESRCH => Err(Error::new(Kind::NotRunning, "the process has ended")),
            result => Ok(result?),
        }
    }

    /// Removes its cgroup, once it has been reaped; what it has left running
    /// there stays, until the container ends.
    pub fn cleanup(&mut self) {
        remove(self.leaf.take().as_deref());
    }

    /// Ends it, and reaps it: nobody will hear of it.
    pub fn abandon(&mut self) {
        let _gone_already = process::pidfd_send_signal(self.pidfd(), libc::SIGKILL);
        while let Err(Errno::EINTR) =
            nix::sys::wait::waitpid(Pid::from_raw(self.child.pid.cast_signed()), None)
        {}
        self.cleanup();
    }
}

fn remove(leaf: Option<&Path>) {
    if let Some(leaf) = leaf {
        // Not empty, it goes with the container's cgroups.
        let _ = crate::cgroup::remove_leaf(leaf);
    }
}

/// While it lives, children of this process begin in the container's pid
/// namespace.
struct JoinedPid(Option<OwnedFd>);

impl JoinedPid {
    fn enter(plan: &Joining, container: BorrowedFd<'_>) -> Result<Self> {
        if !plan.namespaces.contains(CloneFlags::CLONE_NEWPID) {
            return Ok(Self(None));
        }
        let own = paths::open_host(Path::new("/proc/self/ns/pid"), OFlag::O_RDONLY)?;
        match nix::sched::setns(container, CloneFlags::CLONE_NEWPID) {
            Err(Errno::ESRCH) => Err(ended()),
            result => {
                sys(result, || "setns(container, CLONE_NEWPID)".to_owned())?;
                Ok(Self(Some(own)))
            }
        }
    }
}

impl Drop for JoinedPid {
    fn drop(&mut self) {
        if let Some(own) = &self.0 {
            // It worked in the other direction; a failure would show at the
            // next clone3, which makes no process in a namespace that ends.
            let _ = nix::sched::setns(own, CloneFlags::CLONE_NEWPID);
        }
    }
}

/// While it lives, this process runs where a child is to begin.
struct Processors(Option<CpuSet>);

impl Processors {
    fn begin_on(plan: &Joining) -> Result<Self> {
        if plan.affinity.initial.is_empty() {
            return Ok(Self(None));
        }
        let this = Pid::from_raw(0);
        let before = sys(sched_getaffinity(this), || "sched_getaffinity(0)".to_owned())?;
        let wanted = join::cpu_set(&plan.affinity.initial, "initial")?;
        sys(sched_setaffinity(this, &wanted), || "sched_setaffinity(0)".to_owned())
            .during(|| "process.execCPUAffinity.initial".to_owned())?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It was so a moment ago; another place is no loss but of time.
            let _ = sched_setaffinity(Pid::from_raw(0), before);
        }
    }
}
