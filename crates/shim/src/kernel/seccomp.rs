// SPDX-License-Identifier: Apache-2.0
//! seccomp(2).
#![allow(unsafe_code, reason = "a system call without a wrapper in nix or libc")]

use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::errno::Errno;

use super::{Result, SysError};

/// `SECCOMP_SET_MODE_FILTER` of linux/seccomp.h.
const SET_MODE_FILTER: libc::c_uint = 1;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 8;

/// Filters this process's system calls, for ever and for its descendants.
/// Needs no_new_privs or CAP_SYS_ADMIN. Returns the descriptor that a filter
/// which reports calls is listened to at.
///
/// # Errors
/// EINVAL when the kernel refuses the program or a flag, EACCES without the
/// privilege.
pub fn install(filter: &[libc::sock_filter], flags: u32) -> Result<Option<OwnedFd>> {
    let failed = |errno| SysError::new(format!("seccomp(SECCOMP_SET_MODE_FILTER, {flags:#x})"), errno);
    let Ok(len) = u16::try_from(filter.len()) else { return Err(failed(Errno::EINVAL)) };
    // The kernel only reads the program; its type doesn't say so.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` points to `len` instructions that outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    match i32::try_from(result) {
        Ok(number) if number >= 0 && flags & NEW_LISTENER != 0 => {
            // SAFETY: the kernel has just made this descriptor for us alone.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(number) }))
        }
        Ok(0) => Ok(None),
        _ => Err(failed(Errno::last())),
    }
}
