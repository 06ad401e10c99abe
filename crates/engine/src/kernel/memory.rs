// SPDX-License-Identifier: Apache-2.0
//! How the C library's allocator keeps memory.
#![allow(unsafe_code, reason = "no library has mallopt(3)")]

/// Has all threads share two arenas, instead of up to eight per processor: what
/// a thread for blocking work frees is of use to all others, and the engine
/// keeps a quarter less of memory that nothing is in. To be called before there
/// is a second thread.
pub fn share_arenas() {
    // SAFETY: it sets a number.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2)
    };
}
