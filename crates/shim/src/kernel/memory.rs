// SPDX-License-Identifier: Apache-2.0
//! The allocator's settings: there is a shim for every container. And what is
//! seen of this process's memory from outside: its command line.
#![allow(unsafe_code, reason = "mallopt, malloc_trim; the command line is only known by its address")]

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _};

use super::{Procfs, Result};

/// Tells the allocator to keep little in reserve. Once, at the start.
pub fn be_frugal() {
    #[cfg(target_env = "gnu")]
    // SAFETY: only integers are passed; there is no other thread.
    unsafe {
        // A value that it doesn't take changes nothing.
        libc::mallopt(libc::M_TOP_PAD, 16 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 * 1024);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 * 1024);
    }
}

/// Has this process shown as `name`, where its command line was: that of a
/// copy of the shim says where the host keeps things. One that isn't found
/// where `proc`, the host's, says stays.
///
/// # Errors
/// Those of procfs.
pub fn rename_command_line(proc: &Procfs, name: &str) -> Result<()> {
    let stat = proc.read("self/stat")?;
    let text = String::from_utf8_lossy(&stat);
    // Fields 48 and 49 of proc_pid_stat(5); the second may hold anything.
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = rest.split_ascii_whitespace().skip(48 - 3).map(|field| field.parse::<usize>().ok());
    let (Some(Some(start)), Some(Some(end))) = (fields.next(), fields.next()) else { return Ok(()) };
    let known: Vec<u8> =
        std::env::args_os().flat_map(|arg: OsString| [arg.as_bytes(), b"\0"].concat()).collect();
    if start == 0 || end.checked_sub(start) != Some(known.len()) || name.len() >= known.len() {
        return Ok(());
    }
    // SAFETY: the kernel says that the arguments it has put on this process's
    // stack are there, for as long as the process lives. Nothing borrows them:
    // the standard library gives copies only.
    let line = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, known.len()) };
    if *line == known[..] {
        line.fill(0);
        line[..name.len()].copy_from_slice(name.as_bytes());
    }
    Ok(())
}

/// Gives back what making the container took.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer and frees only what nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
}
