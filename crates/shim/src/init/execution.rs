// SPDX-License-Identifier: Apache-2.0
//! How the kernel runs the process from here on. Done with the host's rights:
//! a container has no right to a better place than others.

use nix::errno::Errno;

use crate::{
    kernel::{SysError, scheduling},
    runtime::{During as _, Error, Execution, Kind, Result},
};

/// How the process `pid` is scheduled; 0 is this one. What is set here need
/// not survive a fork, and one policy forbids it.
pub(crate) fn schedule(pid: u32, plan: &Execution) -> Result<()> {
    let Some(scheduler) = plan.scheduler else { return Ok(()) };
    let result = scheduling::set_scheduler(pid, scheduler).map_err(|e| unsupported(e, Errno::EINVAL));
    result.during(|| "process.scheduler".to_owned())
}

/// Sets for this process all else that the specification asks for, and leaves
/// the rest as it is.
pub(super) fn set(plan: &Execution) -> Result<()> {
    if let Some(io) = plan.io_priority {
        scheduling::set_io_priority(io.class, io.priority).during(|| "process.ioPriority".to_owned())?;
    }
    if let Some(domain) = plan.personality {
        scheduling::set_personality(domain).during(|| "linux.personality".to_owned())?;
    }
    if let Some(policy) = &plan.memory_policy {
        let result = scheduling::set_memory_policy(policy.mode, &policy.nodes);
        let result = result.map_err(|e| unsupported(e, Errno::ENOSYS));
        result.during(|| "linux.memoryPolicy".to_owned())?;
    }
    Ok(())
}

/// What this kernel was built without is said to be so.
fn unsupported(e: SysError, sign: Errno) -> Error {
    let kind = if e.errno() == sign { Kind::Unsupported } else { Kind::Os };
    Error::new(kind, e.to_string())
}
