// SPDX-License-Identifier: Apache-2.0
//! The loopback interface of a new network namespace.
#![allow(unsafe_code, reason = "ioctls")]

use std::os::fd::AsRawFd as _;

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{Result, SysError, sys};

/// Brings `lo` up; the kernel gives it its addresses then.
///
/// # Errors
/// Those of netdevice(7).
pub fn loopback_up() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let socket = sys(socket, || "socket(AF_INET, SOCK_DGRAM)".to_owned())?;
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // The flags of a loopback interface besides these two are the kernel's own.
    #[expect(clippy::cast_possible_truncation, reason = "both are bits of a short")]
    let flags = (libc::IFF_UP | libc::IFF_LOOPBACK) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result == 0 {
        return Ok(());
    }
    Err(SysError::new("ioctl(SIOCSIFFLAGS, {ifr_name=\"lo\", IFF_UP})", Errno::last()))
}
