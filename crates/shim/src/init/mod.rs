// SPDX-License-Identifier: Apache-2.0
//! What runs in the container's first process between clone3 and execve: a
//! straight line through the plan.
//!
//! This is a copy of the shim in new namespaces. It holds the host's rights
//! until [`credentials`], and sees the host's files until [`rootfs::enter`]:
//! nothing of the container's file system is executed or trusted in between,
//! and every path in it is resolved by descriptor ([`crate::kernel::paths`]).

mod copy_up;
mod credentials;
mod dev;
mod exec;
pub(crate) mod execution;
mod identity;
pub(crate) mod join;
mod limits;
mod mask;
mod mounts;
pub(crate) mod overlay;
pub mod passwd;
mod reaper;
mod rootfs;
mod stdio;
mod sysctl;
mod users;

use std::{
    cell::RefCell,
    convert::Infallible,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    sched::CloneFlags,
    sys::{prctl, signal::Signal, stat::Mode},
};

use self::exec::Program;
use crate::{
    kernel::{
        Procfs, fd, forget_names, memory, net,
        paths::{self, Make},
        process::{self, CloseRange},
        seccomp, sys,
        tty::Size,
    },
    runtime::{
        During as _, Error, FromShim, Keyring, Kind, Lifetime, Mount, Plan, Result, Stdio, ToInit, ToShim,
        await_start,
        hooks::{Hooks, Moment},
        receive_mount, tell_shim, wait_for,
    },
};

/// The first descriptor that is neither a standard stream nor handed on to
/// the program.
const FIRST: u32 = 3;

/// What init starts with.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) socket: OwnedFd,
    pub(crate) stdio: Stdio,
    pub(crate) lifetime: Lifetime,
    /// So many descriptors from 3 on are the program's.
    pub(crate) preserved: u32,
    pub(crate) keyring: Keyring,
    /// The root is moved, not pivoted to.
    pub(crate) no_pivot: bool,
    /// The program is a child of the first process, which reaps.
    pub(crate) init: bool,
    /// What is seen below /sys/fs/cgroup.
    pub(crate) cgroups: Vec<(String, PathBuf)>,
    pub(crate) hooks: &'a Hooks,
    /// Mounts that the shim sends, ready to be attached.
    pub(crate) from_shim: FromShim,
}

/// Init: sets the process up and executes the program. Never returns.
pub(crate) fn run(setup: Setup<'_>) -> Infallible {
    leave(|| {
        let Setup { socket, lifetime, stdio, preserved, .. } = &setup;
        // Whoever makes the user namespace has to reach its files in /proc, and
        // need not be root: nobody else is there yet who could.
        or_tell(socket, if setup.plan.namespaces.has_new_users() { show() } else { hide() })?;
        let settled = or_tell(socket, settle(socket, lifetime.listener(), stdio, *preserved))?;
        let program = or_tell(&settled.socket, follow(&settled, &setup))?;
        let starter = start_of(settled)?;
        or_tell(&starter, execute(&program, &setup, &starter))
    })
}

/// Between the shim and init: joins the users of somebody else, and makes init
/// the shim's child, not its own. Never returns.
pub(crate) fn run_among(users: OwnedFd, flags: u64, socket: OwnedFd, setup: Setup<'_>) -> Infallible {
    leave(|| {
        let made = || {
            sys(nix::sched::setns(&users, CloneFlags::CLONE_NEWUSER), || "setns(CLONE_NEWUSER)".to_owned())?;
            users::become_root()?;
            let parent = libc::CLONE_PARENT.cast_unsigned() as u64;
            Ok(process::clone3(flags | parent, None, || run(setup))?)
        };
        let child = or_tell(&socket, made())?;
        tell_shim(&socket, &ToShim::Made(child.pidfd))?;
        Ok(process::exit_now(0))
    })
}

/// Does `work`, which only returns when it failed, and ends the process: of
/// what the parent's memory holds a copy of nothing is dropped.
fn leave(work: impl FnOnce() -> Result<Infallible>) -> Infallible {
    let status = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(never)) => match never {},
        Ok(Err(e)) if e.kind() == Kind::ExecNotFound => 127,
        Ok(Err(e)) if e.kind() == Kind::ExecNotPermitted => 126,
        Ok(Err(_)) | Err(_) => 125,
    };
    process::exit_now(status)
}

/// What went wrong is told to whoever waits at the other end.
fn or_tell<T>(socket: &OwnedFd, result: Result<T>) -> Result<T> {
    result.inspect_err(|e| {
        // Nobody may be left to be told.
        let _ = tell_shim(socket, &ToShim::Failed(e.clone()));
    })
}

/// What init keeps of all that it has inherited.
#[derive(Debug)]
struct Settled {
    /// To whoever has made the container.
    socket: OwnedFd,
    /// For the first process: where it waits for its start, unless that comes
    /// through `socket`. For one that joins: the container.
    second: Option<OwnedFd>,
    /// The size of the terminal, where there is one, and whether a line's end
    /// is one character there.
    terminal: Option<(Size, bool)>,
}

/// Nothing of the container may look into this process (D7).
fn hide() -> Result<()> {
    Ok(sys(prctl::set_dumpable(false), || "prctl(PR_SET_DUMPABLE, 0)".to_owned())?)
}

fn show() -> Result<()> {
    Ok(sys(prctl::set_dumpable(true), || "prctl(PR_SET_DUMPABLE, 1)".to_owned())?)
}

/// Leaves the shim behind: its death is ours, its descriptors are closed, and
/// the streams are where they belong.
fn settle(socket: &OwnedFd, second: Option<impl AsFd>, stdio: &Stdio, preserved: u32) -> Result<Settled> {
    die_with_the_shim(Some(Signal::SIGKILL))?;
    let first = FIRST + preserved;
    let kept = [Some(socket.as_fd()), second.as_ref().map(AsFd::as_fd)];
    // Above all that is about to be placed.
    let copy = |from| process::duplicate_above(from, (first + 7).cast_signed());
    let kept: Vec<OwnedFd> = kept.into_iter().flatten().map(copy).collect::<crate::kernel::Result<_>>()?;
    let terminal = match stdio {
        Stdio::Terminal { rows, columns, plain } => Some((Size { rows: *rows, columns: *columns }, *plain)),
        Stdio::Pipes { stdin, stdout, stderr } => {
            process::place_streams([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
            None
        }
        Stdio::Inherited => None,
    };
    let mut placed = Vec::with_capacity(kept.len());
    for (from, number) in kept.iter().zip(first.cast_signed()..) {
        process::place(from.as_fd(), number)?;
        placed.push(process::adopt(number)?);
    }
    // What is closed here is owned by values that this process never drops.
    std::mem::forget(kept);
    process::close_from(first + 2 - u32::from(placed.len() == 1), CloseRange::Now)?;
    let second = if placed.len() == 2 { placed.pop() } else { None };
    let socket = placed.pop().ok_or_else(|| Error::new(Kind::Os, "init has no socket"))?;
    Ok(Settled { socket, second, terminal })
}

/// Waits until somebody starts the container: who has to hear how that went.
fn start_of(settled: Settled) -> Result<OwnedFd> {
    match settled.second {
        Some(listener) => await_start(&listener),
        None => {
            wait_for(&settled.socket, ToInit::Start)?;
            Ok(settled.socket)
        }
    }
}

/// The signal that the kernel sends when the shim dies. A shim that is dead
/// already shows as the end of the socket, which init reads.
fn die_with_the_shim(signal: Option<Signal>) -> Result<()> {
    Ok(sys(prctl::set_pdeathsig(signal), || format!("prctl(PR_SET_PDEATHSIG, {signal:?})"))?)
}

/// All of the creation.
fn follow(settled: &Settled, setup: &Setup<'_>) -> Result<Program> {
    let Setup { plan, cgroups, hooks, .. } = setup;
    let Settled { socket, terminal, .. } = settled;
    let warn = |text: String| tell_shim(socket, &ToShim::Warning(text));
    // Modes are as the plan says; the container's own mask comes last.
    let umask = nix::sys::stat::umask(Mode::empty());
    sys(nix::unistd::setsid(), || "setsid()".to_owned())?;
    if plan.namespaces.has_new_users() {
        wait_for(socket, ToInit::Mapped)?;
        users::become_root()?;
    }
    // Taken while the host's files are all there is to see.
    let proc = Procfs::of_host()?;
    if setup.init {
        memory::rename_command_line(&proc, reaper::NAME)?;
    }
    if plan.namespaces.new_time {
        users::enter_time(&proc, &plan.time_offsets)?;
    }
    join_namespaces(plan)?;
    name_host(plan)?;
    if plan.namespaces.new.contains(CloneFlags::CLONE_NEWNET) {
        net::loopback_up().during(|| "bring the loopback interface up".to_owned())?;
    }
    let null = mask::host_null()?;
    let made = setup.from_shim.root.then(|| receive_mount(socket)).transpose()?;
    // All of them, before anything else comes from the shim.
    let wanted = plan.mounts.iter().filter(|mount| setup.from_shim.makes(mount));
    let mapped: Vec<OwnedFd> = wanted.map(|_| receive_mount(socket)).collect::<Result<_>>()?;
    let mapped = RefCell::new(mapped.into_iter());
    let in_the_open = hooks.any_in_creation() || !plan.namespaces.has_private_mounts();
    let shown = in_the_open.then_some(plan.root_path.as_path());
    let root = rootfs::attach(plan, shown, made).during(|| "mount the root file system".to_owned())?;
    let mount_all = |mounts: &[Mount]| {
        mounts.iter().try_for_each(|mount| {
            let mapped = setup.from_shim.makes(mount).then(|| mapped.borrow_mut().next()).flatten();
            let mounted = mounts::mount(&root, mount, mapped, cgroups);
            mounted
                .during(|| {
                    let (source, place) = (mount.source.name(), mount.destination.display());
                    format!("error mounting {source:?} to rootfs at \"{place}\"")
                })
                .map_err(|e| rootfs::unless_detached(plan, e))
        })
    };
    let (before, after) = plan.mounts.split_at(dev::position(&plan.dev));
    mount_all(before)?;
    let dev = dev::mount(&root, &plan.dev).during(|| "make /dev".to_owned())?;
    mount_all(after)?;
    dev::elsewhere(&root, &plan.nodes_elsewhere)?;
    if let Some(terminal) = terminal {
        let master =
            stdio::open_terminal(&root, dev.as_ref(), *terminal).during(|| "open the terminal".to_owned())?;
        stdio::take_control()?;
        tell_shim(socket, &ToShim::Console(master))?;
    }
    root.make(&plan.process.cwd, Make::Directory)
        .during(|| format!("make {}", plan.process.cwd.display()))?;
    // They may mount, write into the root, and add the network device that a
    // parameter is for.
    let in_cgroups = run_hooks(hooks, socket, &root, umask)?;
    sysctl::write(&proc, &plan.sysctls)?;
    mask::read_only(&root, &plan.read_only)?;
    mask::hide(&root, &plan.masked, null)?;
    let user = identity::resolve(&root, &plan.process.identity)?;
    dev::finish(dev.as_ref(), &plan.dev)?;
    rootfs::finish(&root, plan)?;
    if setup.no_pivot && plan.namespaces.has_private_mounts() {
        rootfs::cover_host(&root, plan.propagation).during(|| "cover the host's mounts".to_owned())?;
    }
    rootfs::enter(&root, plan, setup.no_pivot).during(|| "enter the root file system".to_owned())?;
    forget_names();
    if !in_cgroups {
        // The shim has been attaching this process all the while.
        wait_for(socket, ToInit::CgroupReady)?;
    }
    if plan.namespaces.new_cgroup {
        sys(nix::sched::unshare(CloneFlags::CLONE_NEWCGROUP), || "unshare(CLONE_NEWCGROUP)".to_owned())?;
    }
    if setup.keyring == Keyring::New {
        process::new_session_keyring()?;
    }
    credentials::label(&proc, &plan.process)?;
    let groups = credentials::Groups::of_namespace(&proc)?;
    drop(proc);
    limits::set(&plan.process.rlimits)?;
    execution::schedule(0, &plan.process.execution).map_err(|e| match plan.resources.cpuset.cpus {
        // sched_setattr(2): a deadline needs all processors.
        Some(_) => e.during("process scheduler can't be used together with AllowedCPUs"),
        None => e,
    })?;
    execution::set(&plan.process.execution)?;
    stdio::give(user.uid)?;
    enter_directory(&root, &plan.process.cwd)?;
    drop((root, dev));
    // All that is open is ours and closes itself; said again before a filter
    // that may not know the call is in force (D6).
    process::close_from(FIRST + setup.preserved, CloseRange::AtExec)?;
    // Without no_new_privs a filter takes a capability that is about to go.
    if !plan.process.no_new_privileges {
        filter_calls(plan.seccomp.as_ref(), socket)?;
    }
    credentials::become_user(&user, groups, &plan.process, warn)?;
    // Changing credentials has cleared it, or not.
    die_with_the_shim(matches!(setup.lifetime, Lifetime::Bound).then_some(Signal::SIGKILL))?;
    nix::sys::stat::umask(plan.process.umask.map_or(umask, Mode::from_bits_truncate));
    let program = exec::prepare(&plan.process, &user)?;
    // Whoever creates the container hands the listener on; who starts it may be
    // another.
    if plan.process.no_new_privileges && reports_calls(plan.seccomp.as_ref()) {
        filter_calls(plan.seccomp.as_ref(), socket)?;
    }
    if settled.second.is_some() {
        // Whoever asks a container to end before its start is heard, too.
        process::end_on_request()?;
    }
    tell_shim(socket, &ToShim::Created)?;
    Ok(program)
}

/// All of the start.
fn execute(program: &Program, setup: &Setup<'_>, starter: &OwnedFd) -> Result<Infallible> {
    let Setup { plan, hooks, .. } = setup;
    // As late as can be; one that reports calls is in force already.
    let filter = plan.seccomp.as_ref().filter(|filter| filter.listener.is_none());
    let filter_now = || match filter.filter(|_| plan.process.no_new_privileges) {
        Some(filter) => seccomp::install(&filter.raw(), filter.flags).map(drop),
        None => Ok(()),
    };
    if hooks.any_in_start() {
        // They may do no more than the program, as with runc.
        filter_now()?;
        hooks.run_here(Moment::StartContainer, std::process::id(), program.env())?;
        process::reset_signals()?;
    } else {
        process::reset_signals()?;
        filter_now()?;
    }
    if !setup.init {
        return Err(program.execute());
    }
    reaper::run(|| {
        leave(|| {
            or_tell(starter, process::reset_signals().map_err(Error::from))?;
            or_tell(starter, Err(program.execute()))
        })
    })
}

/// The hooks of the creation, while the host's files still are where paths
/// lead to. True when it has been waited for the cgroups on the way.
fn run_hooks(hooks: &Hooks, socket: &OwnedFd, root: &paths::Root, umask: Mode) -> Result<bool> {
    let in_runtime = hooks.any_before_the_root();
    if in_runtime {
        wait_for(socket, ToInit::CgroupReady)?;
        tell_shim(socket, &ToShim::HooksDue)?;
        wait_for(socket, ToInit::HooksDone)?;
    }
    // Where a hook that mounts something finds the container's root, as with
    // runc. The next step goes there in any case.
    sys(nix::unistd::fchdir(root), || format!("fchdir({})", fd(root)))?;
    nix::sys::stat::umask(umask);
    hooks.run_here(Moment::CreateContainer, std::process::id(), &[])?;
    nix::sys::stat::umask(Mode::empty());
    Ok(in_runtime)
}

fn reports_calls(filter: Option<&berth_seccomp::Program>) -> bool {
    filter.is_some_and(|filter| filter.listener.is_some())
}

/// Puts the filter in force; whoever waits at `socket` gets its listener.
fn filter_calls(filter: Option<&berth_seccomp::Program>, socket: &OwnedFd) -> Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    if let Some(listener) = seccomp::install(&filter.raw(), filter.flags)? {
        tell_shim(socket, &ToShim::Listener(listener.as_raw_fd()))?;
        wait_for(socket, ToInit::ListenerTaken)?;
    }
    Ok(())
}

/// Joins what the specification names; the pid namespace the shim has joined.
fn join_namespaces(plan: &Plan) -> Result<()> {
    for join in plan.namespaces.join.iter().filter(|join| join.kind != CloneFlags::CLONE_NEWPID) {
        let namespace = paths::open_host(&join.path, OFlag::O_RDONLY)?;
        sys(nix::sched::setns(&namespace, join.kind), || format!("setns({:?}, {:?})", join.path, join.kind))?;
    }
    Ok(())
}

fn name_host(plan: &Plan) -> Result<()> {
    if let Some(name) = &plan.hostname {
        sys(nix::unistd::sethostname(name), || format!("sethostname({name:?})"))?;
    }
    if let Some(name) = &plan.domainname {
        process::set_domain_name(name)?;
    }
    Ok(())
}

/// Changes to the working directory, and makes sure that it is inside (D6).
fn enter_directory(root: &paths::Root, path: &Path) -> Result<()> {
    let directory = root.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    sys(nix::unistd::fchdir(&directory), || format!("fchdir({path:?})"))?;
    let here = sys(nix::unistd::getcwd(), || "getcwd()".to_owned())?;
    if here.is_absolute() {
        return Ok(());
    }
    Err(Error::new(Kind::InvalidSpec, format!("process.cwd: {path:?} is outside of the container")))
}
