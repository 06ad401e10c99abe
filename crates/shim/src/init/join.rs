// SPDX-License-Identifier: Apache-2.0
//! What runs in a process that joins a container, between clone3 and execve: a
//! straight line, as [`super::follow`] is for the first one.
//!
//! Until the container's namespaces are joined this is a copy of the runtime
//! that the container can't see; from then on it can: so what it could look
//! into is closed and locked before.

use std::{convert::Infallible, os::fd::OwnedFd, path::Path};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    sys::stat::Mode,
    unistd::Pid,
};

use super::{
    Settled, credentials, die_with_the_shim, enter_directory, exec, execution, filter_calls, hide, identity,
    leave, limits, or_tell, settle, stdio, users,
};
use crate::{
    kernel::{
        paths::{self, Root},
        process::{self, CloseRange},
        sys,
    },
    runtime::{
        Bound, During as _, Error, Joining, Keyring, Kind, Result, Stdio, ToInit, ToShim, tell_shim, wait_for,
    },
};

/// What it starts with.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) plan: &'a Joining,
    pub(crate) socket: OwnedFd,
    pub(crate) stdio: Stdio,
    pub(crate) bound: Bound,
    /// So many descriptors from 3 on are the program's.
    pub(crate) preserved: u32,
    pub(crate) keyring: Keyring,
    /// A pidfd of the container's first process.
    pub(crate) container: OwnedFd,
    /// Its pid.
    pub(crate) pid: u32,
    /// It has been born among the container's users.
    pub(crate) is_among: bool,
}

/// Between a caller who isn't root and the process: only among the container's
/// users may its pid namespace be joined, and there is no way back. The process
/// is this one's sibling. Never returns.
pub(crate) fn run_among(socket: OwnedFd, setup: Setup<'_>) -> Infallible {
    leave(|| {
        let made = || {
            let enter = |kind| {
                Ok::<_, Error>(sys(setns(&setup.container, kind), || format!("setns(container, {kind:?})"))?)
            };
            enter(CloneFlags::CLONE_NEWUSER)?;
            users::become_root()?;
            if setup.plan.namespaces.contains(CloneFlags::CLONE_NEWPID) {
                enter(CloneFlags::CLONE_NEWPID)?;
            }
            let parent = libc::CLONE_PARENT.cast_unsigned() as u64;
            Ok(process::clone3(parent, None, || run(Setup { is_among: true, ..setup }))?)
        };
        let child = or_tell(&socket, made())?;
        tell_shim(&socket, &ToShim::Made(child.pidfd))?;
        Ok(process::exit_now(0))
    })
}

/// Joins the container and executes the program. Never returns.
pub(crate) fn run(setup: Setup<'_>) -> Infallible {
    leave(|| {
        or_tell(&setup.socket, hide())?;
        let settled = settle(&setup.socket, Some(&setup.container), &setup.stdio, setup.preserved);
        let settled = or_tell(&setup.socket, settled)?;
        or_tell(&settled.socket, follow(&settled, &setup))
    })
}

fn follow(settled: &Settled, setup: &Setup<'_>) -> Result<Infallible> {
    let (plan, socket) = (setup.plan, &settled.socket);
    let process = &plan.process;
    let warn = |text: String| tell_shim(socket, &ToShim::Warning(text));
    let umask = nix::sys::stat::umask(Mode::empty());
    sys(nix::unistd::setsid(), || "setsid()".to_owned())?;
    // Taken while the host's files are all there is to see.
    let proc = paths::host_proc()?;
    // No code of the container runs in here before its limits are ours.
    wait_for(socket, ToInit::CgroupReady)?;
    // Should the pid be another's by now, joining fails: the pidfd is not.
    let path = format!("/proc/{}/root", setup.pid);
    let root = Root::new(paths::open_host(Path::new(&path), OFlag::O_PATH | OFlag::O_DIRECTORY)?);
    let joined = if setup.is_among { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
    join(settled, plan.namespaces - joined)?;
    // The root of the namespace, unless the container has no mounts of its own.
    sys(nix::unistd::fchdir(&root), || "fchdir(root)".to_owned())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the root of the namespace that was joined: there is no other"
    )]
    sys(nix::unistd::chroot("."), || "chroot(\".\")".to_owned())?;
    if let Some(terminal) = settled.terminal {
        let master = stdio::open_terminal(&root, None, terminal).during(|| "open the terminal".to_owned())?;
        tell_shim(socket, &ToShim::Console(master))?;
    }
    let user = identity::resolve(&root, &process.identity)?;
    if setup.keyring == Keyring::New {
        process::new_session_keyring()?;
    }
    credentials::label(&proc, process)?;
    let groups = credentials::Groups::of_namespace(&proc)?;
    drop(proc);
    limits::set(&process.rlimits)?;
    execution::set(&process.execution)?;
    run_on(&plan.affinity.last)?;
    stdio::give(user.uid)?;
    enter_directory(&root, &process.cwd)?;
    drop(root);
    // As for the first process.
    process::close_from(super::FIRST + setup.preserved, CloseRange::AtExec)?;
    // Without no_new_privs a filter takes a capability that is about to go.
    if !process.no_new_privileges {
        filter_calls(plan.seccomp.as_ref(), socket)?;
    }
    credentials::become_user(&user, groups, process, warn)?;
    die_with_the_shim((setup.bound == Bound::ToUs).then_some(nix::sys::signal::Signal::SIGKILL))?;
    nix::sys::stat::umask(process.umask.map_or(umask, Mode::from_bits_truncate));
    let program = exec::prepare(process, &user)?;
    tell_shim(socket, &ToShim::Created)?;
    wait_for(socket, ToInit::Start)?;
    process::reset_signals()?;
    if process.no_new_privileges {
        filter_calls(plan.seccomp.as_ref(), socket)?;
    }
    Err(program.execute())
}

/// Enters all namespaces of the container at once, but for that of pids, which
/// this process was born in.
fn join(settled: &Settled, namespaces: CloneFlags) -> Result<()> {
    let flags = namespaces - CloneFlags::CLONE_NEWPID;
    let Some(container) = &settled.second else {
        return Err(Error::new(Kind::Os, "no container to join"));
    };
    match setns(container, flags) {
        Err(Errno::ESRCH) => Err(Error::new(Kind::NotRunning, "the container's first process has ended")),
        result => Ok(sys(result, || format!("setns(container, {flags:?})"))?),
    }
}

/// `process.execCPUAffinity.final`.
fn run_on(processors: &[u64]) -> Result<()> {
    if processors.is_empty() {
        return Ok(());
    }
    let wanted = cpu_set(processors, "final")?;
    sys(sched_setaffinity(Pid::from_raw(0), &wanted), || "sched_setaffinity(0)".to_owned())
        .during(|| "process.execCPUAffinity.final".to_owned())
}

/// A mask as sched_setaffinity(2) takes it.
pub(crate) fn cpu_set(mask: &[u64], field: &str) -> Result<CpuSet> {
    let mut set = CpuSet::new();
    for number in (0..mask.len() * 64).filter(|n| mask[n / 64] & 1 << (n % 64) != 0) {
        set.set(number).map_err(|_| {
            Error::invalid(format!("process.execCPUAffinity.{field}: there is no processor {number}"))
        })?;
    }
    Ok(set)
}
