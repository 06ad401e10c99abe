// SPDX-License-Identifier: Apache-2.0
//! The allocator's settings: there is a shim for every container.
#![allow(unsafe_code, reason = "mallopt, malloc_trim")]

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

/// Gives back what making the container took.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes an integer and frees only what nobody uses.
    unsafe {
        libc::malloc_trim(0);
    }
}
