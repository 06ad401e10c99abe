// SPDX-License-Identifier: Apache-2.0
//! The shim's half of a creation: cgroups, clone3, and following init until
//! it is ready to execute.
//!
//! The shim attaches init to its v1 cgroups while init mounts: that attach is
//! the longest single wait of a start.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use berth::failpoint;
use nix::{errno::Errno, fcntl::OFlag, sched::CloneFlags};

use super::{
    Create, Stdio,
    channel::{self, ToInit, ToShim},
    container::Container,
    error::{During as _, Error, Kind, Result},
    hooks::{Hooks, Moment},
    host,
    mapped::{self, FromShim},
    net_devices, notify,
    plan::{self, Namespaces, Plan},
    root_mount::RootMount,
    users,
};
use crate::{
    cgroup::{Group, Layout, Limits, Resctrl},
    init::{self, Setup},
    kernel::{Procfs, paths, process, process::Child, socket, sys},
};

/// How long init may take for all of its work; mounts of a dead network file
/// system would take for ever.
const CREATED_WITHIN: Duration = Duration::from_secs(60);

/// Creates a container: when this returns, its first process has done
/// everything but execve, and waits for [`Container::start`].
///
/// # Errors
/// Of every kind; nothing is left of the container then.
pub fn create(request: Create<'_>) -> Result<Container> {
    let mut warnings = Vec::new();
    let mut plan = plan::plan(&request.spec, request.bundle, request.rootfs, request.user, request.filter)?;
    check_stdio(plan.process.terminal, &request.stdio)?;
    host::fit(&mut plan, &mut warnings)?;
    let request = Create { stdio: with_console_size(request.stdio, plan.process.console_size), ..request };
    let hooks = Hooks::of(&request.spec, request.id, request.bundle)?;
    let limits = Limits { resources: &plan.resources, devices: &plan.devices };
    let resctrl = resctrl(&request.spec, request.id)?;
    let root_mount = RootMount::of(&request.spec, &plan.root_path)?;
    let group = Group::make(&Layout::of_host()?, request.cgroups, &limits, &mut warnings)
        .during(|| format!("make the cgroups of {}", request.id))?;
    failpoint::pass("shim.create.grouped");
    match clone_init(&plan, &group, &hooks, request) {
        Ok((child, socket)) => {
            failpoint::pass("shim.create.cloned");
            let mut container = Container::new(child, socket, group, hooks, warnings);
            container.keep_root_mount(root_mount);
            match follow(&mut container, &plan, resctrl) {
                Ok(()) => Ok(container),
                Err(e) => Err(abandon(container, e)),
            }
        }
        Err(e) => {
            // Empty as they are, only the first error matters.
            let _ = group.remove();
            Err(e)
        }
    }
}

/// The container's part of the resctrl file system.
///
/// # Errors
/// `Unsupported` where there is none, and it is asked for.
pub fn resctrl(spec: &oci_spec::runtime::Spec, id: &str) -> Result<Option<Resctrl>> {
    let wanted = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref());
    wanted.map(|wanted| Resctrl::of_host(wanted, id)).transpose()
}

pub(super) fn check_stdio(terminal: bool, stdio: &Stdio) -> Result<()> {
    match (terminal, stdio) {
        (true, Stdio::Pipes { .. } | Stdio::Inherited) => {
            Err(Error::invalid("process.terminal is set, but there are pipes"))
        }
        (false, Stdio::Terminal { .. }) => Err(Error::invalid("process.terminal is not set, but wanted")),
        _ => Ok(()),
    }
}

/// A terminal whose size its owner doesn't say has that of the specification.
pub(super) fn with_console_size(stdio: Stdio, size: Option<(u16, u16)>) -> Stdio {
    match (stdio, size) {
        (Stdio::Terminal { rows: 0, columns: 0, plain }, Some((rows, columns))) => {
            Stdio::Terminal { rows, columns, plain }
        }
        (stdio, _) => stdio,
    }
}

/// Clones init into its namespaces and its v2 cgroup.
fn clone_init(plan: &Plan, group: &Group, hooks: &Hooks, request: Create<'_>) -> Result<(Child, OwnedFd)> {
    let (ours, theirs) = socket::pair()?;
    let cgroup = group.open_unified()?;
    let setup = Setup {
        plan,
        socket: theirs,
        stdio: request.stdio,
        lifetime: request.lifetime,
        preserved: request.preserve_fds,
        keyring: request.keyring,
        no_pivot: request.no_pivot,
        init: request.init,
        cgroups: group.view(),
        hooks,
        from_shim: FromShim::of(plan),
    };
    let flags = u64::from(plan.namespaces.new.bits().cast_unsigned());
    let _pid_namespace = JoinedPid::enter(&plan.namespaces)?;
    let cgroup = cgroup.as_ref().map(|fd| fd.as_fd());
    let child = match &plan.namespaces.users {
        None => process::clone3(flags, cgroup, || init::run(setup))?,
        Some(path) => clone_among(path, flags, cgroup, setup)?,
    };
    Ok((child, ours))
}

/// Clones init into the users that `path` names, so that they own its other
/// namespaces. A process that has joined them can't come back: a child does
/// it, whose own child is a sibling.
fn clone_among(path: &Path, flags: u64, cgroup: Option<BorrowedFd<'_>>, setup: Setup<'_>) -> Result<Child> {
    let users = paths::open_host(path, OFlag::O_RDONLY).during(|| "linux.namespaces: user".to_owned())?;
    let (ours, theirs) = socket::pair()?;
    let between = process::clone3(0, cgroup, move || init::run_among(users, flags, theirs, setup))?;
    users::sibling(&between, &ours, CREATED_WITHIN).during(|| "linux.namespaces: user".to_owned())
}

/// While it lives, children of the shim begin in a pid namespace that the
/// specification names.
struct JoinedPid(Option<OwnedFd>);

impl JoinedPid {
    fn enter(namespaces: &Namespaces) -> Result<Self> {
        let Some(join) = namespaces.join.iter().find(|join| join.kind == CloneFlags::CLONE_NEWPID) else {
            return Ok(Self(None));
        };
        let own = Procfs::of_host()?.follow("self/ns/pid", OFlag::O_RDONLY)?;
        let theirs = paths::open_host(&join.path, OFlag::O_RDONLY)?;
        sys(nix::sched::setns(&theirs, CloneFlags::CLONE_NEWPID), || {
            format!("setns({:?}, CLONE_NEWPID)", join.path)
        })?;
        Ok(Self(Some(own)))
    }
}

impl Drop for JoinedPid {
    fn drop(&mut self) {
        if let Some(own) = &self.0 {
            // It worked in the other direction; a failure would show at the
            // next clone3, which makes no container without its namespaces.
            let _ = nix::sched::setns(own, CloneFlags::CLONE_NEWPID);
        }
    }
}

/// Does what only the shim can do for init, and waits until it is ready.
fn follow(container: &mut Container, plan: &Plan, resctrl: Option<Resctrl>) -> Result<()> {
    match &plan.id_maps {
        Some(maps) if plan.namespaces.has_new_users() => {
            users::map(maps, container.pid())?;
            // As below.
            let _ = channel::tell_init(container.socket()?, ToInit::Mapped);
        }
        Some(maps) => users::check(maps, container.pid())?,
        None => {}
    }
    mapped::send(plan, container)?;
    if let Some(score) = plan.process.oom_score_adj
        && let Some(warning) = set_oom_score(container.pid(), score)?
    {
        container.warn(warning);
    }
    if let Some(resctrl) = resctrl {
        resctrl.make()?;
        let attached = resctrl.attach(container.pid());
        container.keep_resctrl(resctrl);
        attached?;
    }
    net_devices::move_all(&plan.net_devices, &plan.namespaces, container.pid())?;
    container.group().attach(container.pid()).during(|| "enter the cgroups".to_owned())?;
    run_anywhere(container.pid())?;
    let within = CREATED_WITHIN + container.hooks().time(Moment::CreateContainer);
    let mut deadline = Instant::now() + within;
    // Init that has died already has left a message that says why.
    let _ = channel::tell_init(container.socket()?, ToInit::CgroupReady);
    loop {
        match channel::from_init(container.socket()?, deadline)? {
            ToShim::Warning(text) => container.warn(text),
            ToShim::Console(master) => container.set_console(master),
            ToShim::HooksDue => {
                container.hooks().run(Moment::Prestart, Some(container.pid()))?;
                container.hooks().run(Moment::CreateRuntime, Some(container.pid()))?;
                // What they have taken is not init's.
                deadline = Instant::now() + within;
                // As above.
                let _ = channel::tell_init(container.socket()?, ToInit::HooksDone);
            }
            ToShim::Listener(number) => {
                let listener = plan.seccomp.as_ref().and_then(|program| program.listener.as_ref());
                let listener = listener.ok_or_else(|| Error::new(Kind::Os, "init has a listener"))?;
                let state = container.hooks().state(Moment::CreateContainer, Some(container.pid()));
                notify::hand_over(listener, container.pid(), container.pidfd(), number, &state)?;
                // As above.
                let _ = channel::tell_init(container.socket()?, ToInit::ListenerTaken);
            }
            ToShim::Created => return Ok(()),
            ToShim::Failed(e) => return Err(e),
            ToShim::End => return Err(died(container)),
            ToShim::Made(_) => return Err(Error::new(Kind::Os, "init has made something for the shim")),
        }
    }
}

/// How likely the kernel kills it first. Lowering needs CAP_SYS_RESOURCE:
/// without it the process keeps the runtime's, which is worth a warning.
pub(super) fn set_oom_score(pid: u32, score: i32) -> Result<Option<String>> {
    let path = format!("{pid}/oom_score_adj");
    match Procfs::of_host()?.write(path, score.to_string().as_bytes()) {
        Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EACCES) => {
            Ok(Some(format!("oom_score_adj stays as it is: {e}")))
        }
        result => Ok(result.map(|()| None)?),
    }
}

/// As [`process::run_anywhere`]; whoever has died or may not is not the worse
/// for it.
pub(super) fn run_anywhere(pid: u32) -> Result<()> {
    match process::run_anywhere(pid) {
        Err(e) if matches!(e.errno(), Errno::ESRCH | Errno::EPERM) => Ok(()),
        result => Ok(result?),
    }
}

/// Init ended without a word: the kernel killed it.
fn died(container: &Container) -> Error {
    let why = if container.oom_killed() {
        "the memory limit is too low: the container's first process was killed before it could start"
    } else {
        "the container's first process was killed before it could start"
    };
    Error::new(Kind::Os, why)
}

/// Removes what has been made, and returns the first error: the specification
/// goes on with the hooks of the end (runtime.md, "Lifecycle", 12 and 13).
fn abandon(mut container: Container, e: Error) -> Error {
    let second = container.destroy().err().map(|e| e.to_string());
    let rest = second.into_iter().chain(container.poststop());
    rest.fold(e, |e, next| Error::new(e.kind(), format!("{e} (and then: {next})")))
}
