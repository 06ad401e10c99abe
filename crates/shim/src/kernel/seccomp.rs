// SPDX-License-Identifier: Apache-2.0
//! seccomp(2).
#![allow(unsafe_code, reason = "a system call without a wrapper in nix or libc")]

use nix::errno::Errno;

use super::{Result, SysError};

/// `SECCOMP_SET_MODE_FILTER` of linux/seccomp.h.
const SET_MODE_FILTER: libc::c_uint = 1;

/// Filters this process's system calls, for ever and for its descendants.
/// Needs no_new_privs or CAP_SYS_ADMIN.
///
/// # Errors
/// EINVAL when the kernel refuses the program or a flag, EACCES without the
/// privilege.
pub fn install(filter: &[libc::sock_filter], flags: u32) -> Result<()> {
    let failed = |errno| SysError::new(format!("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x})"), errno);
    let Ok(len) = u16::try_from(filter.len()) else { return Err(failed(Errno::EINVAL)) };
    // The kernel only reads the program; its type doesn't say so.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions that outlive the call.
    match unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) } {
        0 => Ok(()),
        _ => Err(failed(Errno::last())),
    }
}
