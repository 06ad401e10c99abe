// SPDX-License-Identifier: Apache-2.0
//! Gives a new user namespace its maps, from outside.
//!
//! Root writes them; anybody else may map only themselves, and has the rest
//! done by newuidmap(1) and newgidmap(1), which look into /etc/subuid.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::CloneFlags,
    sys::{
        prctl,
        signal::Signal,
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::geteuid,
};

use super::{
    channel::{self, ToShim},
    error::{Error, Kind, Result},
    plan::{IdMaps, Range},
};
use crate::kernel::{Procfs, process, process::Child, sys};

/// Where distributions have the helpers: no search in a PATH that somebody
/// else may have set (D13).
const HELPERS: &str = "/usr/bin";

/// Writes the maps of the namespace that `pid` is in.
pub(super) fn map(maps: &IdMaps, pid: u32) -> Result<()> {
    let files = [("uid_map", "newuidmap", &maps.users), ("gid_map", "newgidmap", &maps.groups)];
    for (file, helper, ranges) in files {
        match write(file, ranges, pid) {
            Err(e) if e.errno() == Errno::EPERM && !geteuid().is_root() => {
                match helped(helper, ranges, pid) {
                    // One id alone needs no helper, but nobody may drop groups then.
                    Err(_) if ranges.len() == 1 && ranges[0].size == 1 => alone(file, ranges, pid)?,
                    result => result?,
                }
            }
            result => result?,
        }
    }
    Ok(())
}

/// The user namespace of the process `pid`, which has not been reaped.
pub(super) fn of(pid: u32) -> Result<OwnedFd> {
    Ok(Procfs::of_host()?.follow(format!("{pid}/ns/user"), OFlag::O_RDONLY)?)
}

/// A user namespace that nobody is in, with these maps.
pub(crate) fn namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let flags = u64::from(CloneFlags::CLONE_NEWUSER.bits().cast_unsigned());
    let holder = process::clone3(flags, None, || {
        // Whoever has made it ends it.
        let _ = prctl::set_pdeathsig(Signal::SIGKILL);
        loop {
            nix::unistd::pause();
        }
    })?;
    let made = map(maps, holder.pid).and_then(|()| of(holder.pid));
    process::pidfd_send_signal(holder.pidfd.as_fd(), libc::SIGKILL)?;
    reap(&holder)?;
    made
}

/// The child that `between` has made as its sibling, and has sent to `socket`.
pub(super) fn sibling(between: &Child, socket: &OwnedFd, within: Duration) -> Result<Child> {
    let answer = channel::from_init(socket, Instant::now() + within);
    if answer.is_err() {
        process::pidfd_send_signal(between.pidfd.as_fd(), libc::SIGKILL)?;
    }
    reap(between)?;
    match answer? {
        ToShim::Made(pidfd) => Ok(Child { pid: process::pid_of(&pidfd)?, pidfd }),
        ToShim::Failed(e) => Err(e),
        other => Err(Error::new(Kind::Os, format!("the process between sent {other:?}"))),
    }
}

/// Waits for a child that is about to end.
pub(super) fn reap(child: &Child) -> Result<()> {
    loop {
        match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED) {
            Err(Errno::EINTR) => {}
            result => return Ok(sys(result, || format!("waitid({})", child.pid)).map(drop)?),
        }
    }
}

/// Whether the process `pid` has users as the specification says.
pub(super) fn check(maps: &IdMaps, pid: u32) -> Result<()> {
    for (file, ranges, field) in
        [("uid_map", &maps.users, "linux.uidMappings"), ("gid_map", &maps.groups, "linux.gidMappings")]
    {
        let text = Procfs::of_host()?.read_text(format!("{pid}/{file}"))?;
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let wanted: String = ranges.iter().map(|range| range.line()).collect();
        if words(&text) != words(&wanted) {
            let why = "is not what the user namespace that linux.namespaces names has";
            return Err(Error::invalid(format!("{field}: {:?} {why}", wanted.trim_end())));
        }
    }
    Ok(())
}

fn write(file: &str, ranges: &[Range], pid: u32) -> crate::kernel::Result<()> {
    let text: String = ranges.iter().map(|range| range.line()).collect();
    Procfs::of_host()?.write(format!("{pid}/{file}"), text.as_bytes())
}

fn alone(file: &str, ranges: &[Range], pid: u32) -> Result<()> {
    Procfs::of_host()?.write(format!("{pid}/setgroups"), b"deny")?;
    Ok(write(file, ranges, pid)?)
}

fn helped(helper: &str, ranges: &[Range], pid: u32) -> Result<()> {
    let path = Path::new(HELPERS).join(helper);
    let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.size]);
    let failed = |why: String| Error::new(Kind::Os, format!("{}: {why}", path.display()));
    let output = Command::new(&path)
        .arg(pid.to_string())
        .args(numbers.map(|n| n.to_string()))
        .env_clear()
        .current_dir("/")
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
