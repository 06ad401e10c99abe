// SPDX-License-Identifier: Apache-2.0
//! A process that joins a container: the caller's half. No helper program: a
//! copy of this process goes into the container's namespaces, and what it makes
//! there executes ([`crate::init::join`]).

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::wait::{Id, WaitPidFlag, waitid},
    unistd::{AccessFlags, Pid, access, geteuid},
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
    init::{
        execution,
        join::{self, Birth, Setup},
    },
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
    /// First who joins, then the process of the program.
    child: Child,
    is_born: bool,
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
    };
    let child = {
        let _processors = Processors::begin_on(&plan)?;
        clone_into(&group, leaf.as_deref(), target.pid, || join::run(setup))
            .map_err(|e| if inside.is_empty() { e } else { e.during("adding pid of the process to cgroups") })
    };
    let child = child.inspect_err(|_| remove(leaf.as_deref()))?;
    let mut joined = Joined { child, is_born: false, console: None, leaf, warnings: Vec::new() };
    match follow(&mut joined, &plan, &group, &ours, &state) {
        Ok(()) => Ok(joined),
        Err(e) => {
            // The end of the socket is the end of whoever waits at it.
            drop(ours);
            joined.abandon();
            Err(if process::is_running(target.pidfd)? { e } else { ended() })
        }
    }
}

fn ended() -> Error {
    Error::new(Kind::NotRunning, "the container's first process has ended")
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
        // A user's container may be in one that isn't delegated to him.
        None => group.enterable(pid)?.filter(|path| is_ours(path)).map(|path| open(&path)).transpose()?,
    };
    Ok(process::clone3(0, cgroup.as_ref().map(|fd| fd.as_fd()), child)?)
}

fn is_ours(cgroup: &Path) -> bool {
    geteuid().is_root() || access(&cgroup.join("cgroup.procs"), AccessFlags::W_OK).is_ok()
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
    let birth = Birth::of(plan);
    // One that has died already has left a message that says why.
    let _ = channel::tell_init(socket, ToInit::CgroupReady);
    loop {
        let message = channel::from_init(socket, deadline)?;
        // What the container may look into may be made to say what it likes.
        let is_trusted = !joined.is_born || birth == Birth::Privileged;
        match message {
            ToShim::Warning(text) if is_trusted => joined.warnings.push(text),
            ToShim::Console(master) if is_trusted => joined.console = Some(master),
            ToShim::Created if birth == Birth::None => {
                // A fork would not hand it on.
                execution::schedule(joined.pid(), &plan.process.execution)?;
                // As above.
                let _ = channel::tell_init(socket, ToInit::Start);
            }
            ToShim::Made(child) if is_trusted => {
                joined.is_born_as(child)?;
                execution::schedule(joined.pid(), &plan.process.execution)?;
                // As above.
                let _ = channel::tell_init(socket, ToInit::Start);
            }
            ToShim::End if joined.is_born || birth == Birth::None => return Ok(()),
            ToShim::End => {
                return Err(Error::new(Kind::Os, "the process was killed before it was in the container"));
            }
            ToShim::Failed(e) => return Err(e),
            ToShim::Listener(number) if birth != Birth::Last => {
                let listener = plan.seccomp.as_ref().and_then(|program| program.listener.as_ref());
                let listener = listener.ok_or_else(|| Error::new(Kind::Os, "there is no listener"))?;
                notify::hand_over(listener, joined.pid(), joined.pidfd(), number, state)?;
                // As above.
                let _ = channel::tell_init(socket, ToInit::ListenerTaken);
            }
            other => return Err(Error::new(Kind::Os, format!("a process that joins sent {other:?}"))),
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

    /// Who has joined has made the process of the program, and ends.
    fn is_born_as(&mut self, pidfd: OwnedFd) -> Result<()> {
        let child = Child { pid: process::pid_of(&pidfd)?, pidfd };
        let between = std::mem::replace(&mut self.child, child);
        self.is_born = true;
        users::reap(&between)
    }

    /// Ends it, and reaps it: nobody will hear of it.
    pub fn abandon(&mut self) {
        let _gone_already = process::pidfd_send_signal(self.pidfd(), libc::SIGKILL);
        if !self.is_born {
            // It may have been killed between a child's birth and the word of
            // it: that child still waits, in its process group.
            let group = Pid::from_raw(self.child.pid.cast_signed());
            while matches!(waitid(Id::PGid(group), WaitPidFlag::WEXITED), Ok(_) | Err(Errno::EINTR)) {}
        }
        let _reaped_above = users::reap(&self.child);
        self.cleanup();
    }
}

fn remove(leaf: Option<&Path>) {
    if let Some(leaf) = leaf {
        // Not empty, it goes with the container's cgroups.
        let _ = crate::cgroup::remove_leaf(leaf);
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
