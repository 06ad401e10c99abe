// SPDX-License-Identifier: Apache-2.0
//! Signals as they come, and children as they end: what the first process of
//! a container lives on when it is ours ([`crate::init`], `reaper`).
#![allow(unsafe_code, reason = "nix knows no signals above 31")]

use std::ffi::c_int;

use nix::errno::Errno;

use super::{Result, SysError, sys};

/// A child that has ended and been reaped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// What its pid was.
    pub pid: u32,
    /// As a shell has it: 128+n for a signal n.
    pub code: c_int,
}

/// Blocks all signals that can be: they wait for [`next`]. The first process
/// of a pid namespace gets them all, then.
///
/// # Errors
/// Those of sigprocmask(2).
pub fn block_all() -> Result<()> {
    sys(nix::sys::signal::SigSet::all().thread_block(), || "sigprocmask(SIG_BLOCK, ~[])".to_owned())
}

/// Waits for a signal and takes it.
///
/// # Errors
/// Those of sigwaitinfo(2).
pub fn next() -> Result<c_int> {
    // SAFETY: zeros are a valid set, which sigfillset fills.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is a set of ours.
    unsafe { libc::sigfillset(&raw mut all) };
    loop {
        // SAFETY: the set is alive; nothing more than the number is asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
        match Errno::last() {
            _ if signal > 0 => return Ok(signal),
            Errno::EINTR => {}
            errno => return Err(SysError::new("sigwaitinfo(~[])", errno)),
        }
    }
}

/// Sends `signal` to a child that hasn't been reaped: its pid is its own. One
/// that has ended doesn't mind.
pub fn send_to_child(pid: u32, signal: c_int) {
    // SAFETY: only integers are passed.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}

/// Reaps a child that has ended; `None` when there is none now.
pub fn reap() -> Option<Reaped> {
    let mut status: c_int = 0;
    // SAFETY: `status` is alive.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let code =
        if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) };
    Some(Reaped { pid, code })
}
