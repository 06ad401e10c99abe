// SPDX-License-Identifier: Apache-2.0
//! Resource limits of the process.

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};

use crate::{
    kernel::sys,
    runtime::{Error, Kind, Result, Rlimit},
};

/// Sets this process's limits. The specification wants them as they are or not
/// at all.
pub(super) fn set(limits: &[Rlimit]) -> Result<()> {
    limits.iter().try_for_each(|limit| set_one(limit.resource, limit.soft, limit.hard))
}

/// As [`set`], for a process that has one more to make: it may have as many as
/// before, but not fewer than [`set_last`] will say.
pub(super) fn set_before_birth(limits: &[Rlimit]) -> Result<()> {
    for limit in limits {
        let Rlimit { resource, mut soft, mut hard } = *limit;
        if counts_processes(limit) {
            let (now, most) = of(resource)?;
            (soft, hard) = (now, hard.max(most));
        }
        set_one(resource, soft, hard)?;
    }
    Ok(())
}

/// What [`set_before_birth`] has left to do, which takes no right.
pub(super) fn set_last(limits: &[Rlimit]) -> Result<()> {
    limits
        .iter()
        .filter(|limit| counts_processes(limit))
        .try_for_each(|limit| set_one(limit.resource, limit.soft, limit.hard))
}

fn counts_processes(limit: &Rlimit) -> bool {
    limit.resource == Resource::RLIMIT_NPROC
}

fn of(resource: Resource) -> Result<(u64, u64)> {
    Ok(sys(getrlimit(resource), || format!("getrlimit({resource:?})"))?)
}

fn set_one(resource: Resource, soft: u64, hard: u64) -> Result<()> {
    match setrlimit(resource, soft, hard) {
        Err(Errno::EPERM) => {
            let (_, most) = of(resource)?;
            let why = format!(
                "process.rlimits: {resource:?}: {hard} is above the host's hard limit of {most}, \
                 which only CAP_SYS_RESOURCE may raise"
            );
            Err(Error::new(Kind::Os, why))
        }
        result => Ok(sys(result, || format!("setrlimit({resource:?}, {soft}, {hard})"))?),
    }
}
