// SPDX-License-Identifier: Apache-2.0
//! How the kernel runs a process: scheduler, I/O priority, memory nodes and
//! execution domain. All calls but the first are for the calling thread.
#![allow(unsafe_code, reason = "system calls without a wrapper in nix or libc")]

use std::ffi::{c_int, c_long, c_ulong};

use nix::errno::Errno;

use super::{Result, SysError};

/// `IOPRIO_WHO_PGRP` of linux/ioprio.h.
const IOPRIO_WHO_PGRP: c_int = 2;
/// `IOPRIO_CLASS_SHIFT` of linux/ioprio.h.
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// What sched_setattr(2) takes: the kernel's `struct sched_attr`, as long as
/// it was at first.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Set by [`set_scheduler`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// -20 to 19, for the policies that share the processor fairly.
    pub nice: i32,
    /// 1 to 99, for the real-time policies.
    pub priority: u32,
    /// Nanoseconds, as the next two: for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// From the beginning of a period.
    pub deadline: u64,
    /// Of its repetition.
    pub period: u64,
}

/// sched_setattr(2) for a process; 0 is this one.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, and in a cgroup without real-time budget;
/// EINVAL for a policy that this kernel doesn't have.
pub fn set_scheduler(pid: u32, attributes: SchedAttr) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "48")]
    let attributes = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attributes };
    // SAFETY: `attributes` has the layout and the size that it says, and
    // outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attributes, 0) };
    check(result, || format!("sched_setattr({pid}, {attributes:?})"))
}

/// ioprio_set(2) for the process group. `class` is `IOPRIO_CLASS_*`.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN or CAP_SYS_NICE, for the real-time class.
pub fn set_io_priority(class: u32, priority: u32) -> Result<()> {
    let value = class << IOPRIO_CLASS_SHIFT | priority;
    // SAFETY: only integers are passed.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PGRP, 0, value) };
    check(result, || format!("ioprio_set(IOPRIO_WHO_PGRP, 0, {class}<<13|{priority})"))
}

/// personality(2).
///
/// # Errors
/// EINVAL on an architecture without it.
pub fn set_personality(domain: c_ulong) -> Result<()> {
    // SAFETY: only an integer is passed.
    let result = unsafe { libc::personality(domain) };
    // The old domain is returned.
    check(result.min(0).into(), || format!("personality({domain:#x})"))
}

/// set_mempolicy(2). `mode` contains its flags; bit n of `nodes` is node n.
///
/// # Errors
/// EINVAL for nodes that the process may not use, ENOSYS without NUMA.
pub fn set_memory_policy(mode: c_int, nodes: &[u64]) -> Result<()> {
    // The kernel looks at one bit less than it is told (set_mempolicy(2), BUGS).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `mask` is null, or as long as `bits` says and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    check(result, || format!("set_mempolicy({mode:#x}, {nodes:x?})"))
}

fn check(result: c_long, call: impl FnOnce() -> String) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    let errno = Errno::last();
    Err(SysError::new(call(), errno))
}
