// SPDX-License-Identifier: Apache-2.0
//! Becoming root of a new user namespace, and entering a new time namespace.

use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, setns},
    unistd::{Gid, Uid, setresgid, setresuid},
};

use crate::{
    kernel::{Procfs, process, sys},
    runtime::{During as _, Result},
};

/// Takes the ids that the namespace's maps now have. What is made from here
/// on belongs to its root.
pub(super) fn become_root() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    sys(setresgid(gid, gid, gid), || "setresgid(0)".to_owned())?;
    sys(setresuid(uid, uid, uid), || "setresuid(0)".to_owned())?;
    // Changing ids has set it anew.
    dumpable(false)
}

fn dumpable(may: bool) -> Result<()> {
    Ok(sys(nix::sys::prctl::set_dumpable(may), || format!("prctl(PR_SET_DUMPABLE, {may})"))?)
}

/// Makes a time namespace, sets its clocks, which can only be done while
/// nobody is in it, and enters.
pub(super) fn enter_time(proc: &Procfs, offsets: &[String]) -> Result<()> {
    process::unshare_time()?;
    // The files of a process that isn't dumpable are the host root's. Nobody
    // but the host sees this one yet: no namespace is joined.
    dumpable(true)?;
    let set = offsets.iter().try_for_each(|line| {
        proc.write("self/timens_offsets", line.as_bytes())
            .during(|| format!("linux.timeOffsets: {:?}", line.trim_end()))
    });
    dumpable(false)?;
    set?;
    let made = proc.follow("self/ns/time_for_children", OFlag::O_RDONLY)?;
    Ok(sys(setns(made, CloneFlags::from_bits_retain(libc::CLONE_NEWTIME)), || {
        "setns(time_for_children, CLONE_NEWTIME)".to_owned()
    })?)
}
