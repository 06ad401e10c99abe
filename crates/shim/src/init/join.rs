// SPDX-License-Identifier: Apache-2.0
//! What runs in a process that joins a container, between clone3 and execve: a
//! straight line, as [`super::follow`] is for the first one.
//!
//! It stays out of the container's pid namespace, where those with
//! CAP_SYS_PTRACE could look into it and take over the host's rights, until it
//! has none left: what begins in there is a child of it, which has nothing to
//! do but to execute the program ([`Birth`], docs/adr/0016).

use std::{convert::Infallible, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CloneFlags, CpuSet, sched_setaffinity, setns},
    sys::{signal::Signal, stat::Mode},
    unistd::{Pid, geteuid, setpgid},
};

use super::{
    Settled, credentials, die_with_the_shim, enter_directory, exec, exec::Program, execution, filter_calls,
    hide, identity, leave, limits, or_tell, settle, stdio, users,
};
use crate::{
    kernel::{
        Procfs, forget_names,
        paths::Root,
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
}

/// When the process of the program is born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Birth {
    /// It is the one that joins: it has no pid namespace to join.
    None,
    /// With nothing but execve left to do: its rights are the program's, and
    /// its filter is in force.
    Last,
    /// With the program's rights. What it has yet to do the filter doesn't let
    /// it do, so it puts that in force itself, which takes no_new_privs.
    Unfiltered,
    /// With the rights that a filter without no_new_privs takes to be put in
    /// force; for the same reason.
    Privileged,
}

/// The calls between a [`Birth::Last`] and execve.
const LAST_CALLS: [(libc::c_long, [u64; 2]); 9] = [
    (libc::SYS_clone, [process::SIBLING, 0]),
    (libc::SYS_sendmsg, [0; 2]),
    (libc::SYS_recvmsg, [0; 2]),
    (libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64]),
    (libc::SYS_setsid, [0; 2]),
    (libc::SYS_prlimit64, [0, libc::RLIMIT_NPROC as u64]),
    (libc::SYS_ioctl, [0, libc::TIOCSCTTY]),
    (libc::SYS_rt_sigaction, [0; 2]),
    (libc::SYS_rt_sigprocmask, [0; 2]),
];

impl Birth {
    pub(crate) fn of(plan: &Joining) -> Self {
        // One that reports calls would be reported by the wrong process.
        let lets_pass = plan.seccomp.as_ref().is_none_or(|filter| {
            let passes = |(number, [first, second]): (_, [u64; 2])| {
                filter.lets_pass(number, [first, second, 0, 0, 0, 0])
            };
            filter.listener.is_none() && LAST_CALLS.into_iter().all(passes)
        });
        match (plan.namespaces.contains(CloneFlags::CLONE_NEWPID), lets_pass) {
            (false, _) => Self::None,
            (true, true) => Self::Last,
            (true, false) if plan.process.no_new_privileges => Self::Unfiltered,
            (true, false) => Self::Privileged,
        }
    }
}

/// Joins the container and executes the program. Never returns.
pub(crate) fn run(setup: Setup<'_>) -> Infallible {
    leave(|| {
        or_tell(&setup.socket, hide())?;
        let settled = settle(&setup.socket, Some(&setup.container), &setup.stdio, setup.preserved);
        let mut settled = or_tell(&setup.socket, settled)?;
        let container = settled.second.take();
        or_tell(&settled.socket, follow(&settled, container, &setup))
    })
}

fn follow(settled: &Settled, container: Option<OwnedFd>, setup: &Setup<'_>) -> Result<Infallible> {
    let (plan, socket) = (setup.plan, &settled.socket);
    let process = &plan.process;
    let birth = Birth::of(plan);
    let umask = nix::sys::stat::umask(Mode::empty());
    if birth == Birth::None {
        sys(nix::unistd::setsid(), || "setsid()".to_owned())?;
    } else {
        // By which the caller finds a child that it has not been told of.
        let this = Pid::from_raw(0);
        sys(setpgid(this, this), || "setpgid(0, 0)".to_owned())?;
    }
    // Taken while the host's files are all there is to see.
    let proc = Procfs::of_host()?;
    // No code of the container runs in here before its limits are ours.
    wait_for(socket, ToInit::CgroupReady)?;
    // Should the pid be another's by now, joining fails: the pidfd is not.
    let root = match proc.follow(format!("{}/root", setup.pid), OFlag::O_PATH | OFlag::O_DIRECTORY) {
        // It has none left.
        Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ESRCH) => return Err(ended()),
        result => Root::new(result?),
    };
    join(container, plan.namespaces)?;
    // The root of the namespace, unless the container has no mounts of its own.
    sys(nix::unistd::fchdir(&root), || "fchdir(root)".to_owned())?;
    #[expect(
        clippy::disallowed_methods,
        reason = "the root of the namespace that was joined: there is no other"
    )]
    sys(nix::unistd::chroot("."), || "chroot(\".\")".to_owned())?;
    forget_names();
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
    if birth == Birth::None {
        limits::set(&process.rlimits)
    } else {
        limits::set_before_birth(&process.rlimits)
    }?;
    execution::set(&process.execution)?;
    run_on(&plan.affinity.last)?;
    stdio::give(user.uid)?;
    enter_directory(&root, &process.cwd)?;
    drop(root);
    // As for the first process.
    let socket_at = super::FIRST + setup.preserved;
    process::close_from(socket_at, CloseRange::AtExec)?;
    // And whoever is born in the container has nothing else of ours (D6).
    process::close_from(socket_at + 1, CloseRange::Now)?;
    let become_program = || {
        // Without no_new_privs a filter takes a capability that is about to go.
        if !process.no_new_privileges {
            filter_calls(plan.seccomp.as_ref(), socket)?;
        }
        let warn = |text: String| tell_shim(socket, &ToShim::Warning(text));
        credentials::become_user(&user, groups, process, warn)?;
        nix::sys::stat::umask(process.umask.map_or(umask, Mode::from_bits_truncate));
        exec::prepare(process, &user)
    };
    if birth == Birth::Privileged {
        return bear(socket, || execute(&become_program()?, birth, settled, setup));
    }
    let program = become_program()?;
    if birth == Birth::None {
        // What is said of one that is yet to be born.
        die_with_the_shim(death(setup))?;
        tell_shim(socket, &ToShim::Created)?;
        wait_for(socket, ToInit::Start)?;
        return execute(&program, birth, settled, setup);
    }
    if birth == Birth::Last && process.no_new_privileges {
        filter_calls(plan.seccomp.as_ref(), socket)?;
    }
    bear(socket, || execute(&program, birth, settled, setup))
}

/// Makes the process of the program in the container's pid namespace, tells
/// the caller, and ends.
fn bear(socket: &OwnedFd, life: impl FnOnce() -> Result<Infallible>) -> Result<Infallible> {
    let child = process::clone_sibling(|| {
        leave(|| {
            or_tell(socket, {
                // Not before the caller knows whom it speaks to.
                wait_for(socket, ToInit::Start).and_then(|()| life())
            })
        })
    })?;
    tell_shim(socket, &ToShim::Made(child)).map(|()| process::exit_now(0))
}

/// The last steps.
fn execute(program: &Program, birth: Birth, settled: &Settled, setup: &Setup<'_>) -> Result<Infallible> {
    // A fork has cleared it; before it is in force a dead caller shows as the
    // container's own death.
    die_with_the_shim(death(setup))?;
    if birth != Birth::None {
        sys(nix::unistd::setsid(), || "setsid()".to_owned())?;
        limits::set_last(&setup.plan.process.rlimits)?;
    }
    if settled.terminal.is_some() {
        stdio::take_control()?;
    }
    process::reset_signals()?;
    if setup.plan.process.no_new_privileges && birth != Birth::Last {
        filter_calls(setup.plan.seccomp.as_ref(), &settled.socket)?;
    }
    Err(program.execute())
}

fn death(setup: &Setup<'_>) -> Option<Signal> {
    (setup.bound == Bound::ToUs).then_some(Signal::SIGKILL)
}

/// Enters all namespaces of the container at once; that of pids is chosen for
/// this process's children.
fn join(container: Option<OwnedFd>, namespaces: CloneFlags) -> Result<()> {
    let container = container.ok_or_else(|| Error::new(Kind::Os, "no container to join"))?;
    // Whoever is root can't be mistaken for somebody else in there.
    let foreign = namespaces.contains(CloneFlags::CLONE_NEWUSER) && !geteuid().is_root();
    match setns(container, namespaces) {
        Err(Errno::ESRCH) => return Err(ended()),
        result => sys(result, || format!("setns(container, {namespaces:?})"))?,
    }
    if foreign { users::become_root() } else { Ok(()) }
}

fn ended() -> Error {
    Error::new(Kind::NotRunning, "the container's first process has ended")
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

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{Process, Spec};
    use serde_json::{Value, json};

    use super::*;
    use crate::runtime::plan::joining::plan;

    fn birth(profile: &Value, no_new_privileges: bool) -> Birth {
        let mut spec = Spec::default();
        let mut linux = spec.linux().clone().expect("linux");
        linux.set_seccomp(Some(serde_json::from_value(profile.clone()).expect("profile")));
        spec.set_linux(Some(linux)).set_process(None);
        let mut process = Process::default();
        process.set_no_new_privileges(Some(no_new_privileges));
        Birth::of(&plan(&spec, process, "").expect("plan"))
    }

    #[test]
    fn a_filter_says_when() {
        let rule =
            |names: Value, action: &str, args: Value| json!({"names": names, "action": action, "args": args});
        let denied = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        // As Docker has them: no new namespaces, and nothing that hides flags.
        let namespaces =
            json!([{"index": 0, "value": 0x7e02_0000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]);
        let last =
            ["sendmsg", "recvmsg", "prctl", "setsid", "ioctl", "prlimit64", "rt_sigaction", "rt_sigprocmask"];
        let docker = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [
                rule(json!(last), "SCMP_ACT_ALLOW", json!([])),
                rule(json!(["clone"]), "SCMP_ACT_ALLOW", namespaces),
            ],
        });
        // And the engine's own.
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/seccomp-default.json");
        let own = serde_json::from_slice(&std::fs::read(golden).expect(golden)).expect("JSON");
        for bit in [false, true] {
            assert_eq!(birth(&own, bit), Birth::Last);
            assert_eq!(birth(&docker, bit), Birth::Last);
            let other = denied(rule(json!(["mount"]), "SCMP_ACT_ERRNO", json!([])));
            assert_eq!(birth(&other, bit), Birth::Last);
        }
        let mut reporting = denied(rule(json!(["mount"]), "SCMP_ACT_NOTIFY", json!([])));
        reporting["listenerPath"] = json!("/agent");
        for profile in [denied(rule(json!(["clone"]), "SCMP_ACT_KILL", json!([]))), reporting] {
            assert_eq!(
                (birth(&profile, false), birth(&profile, true)),
                (Birth::Privileged, Birth::Unfiltered)
            );
        }
    }
}
