// SPDX-License-Identifier: Apache-2.0
//! How the C library's allocator keeps memory.
#![allow(unsafe_code, reason = "no library has malloc_trim(3)")]

use std::sync::atomic::{AtomicU32, Ordering};

/// How many pieces of work end before memory is given back.
const RELEASE_EVERY: u32 = 64;

/// What the GNU C library alone takes, and only from the environment that a
/// program is started with.
#[cfg(target_env = "gnu")]
const TUNABLES: &str = "GLIBC_TUNABLES";

/// All threads share two arenas, instead of up to eight per processor, and
/// nobody keeps freed pieces for itself: a cache for each thread and size grows
/// for thousands of containers before it is full (docs/adr/0026), and
/// holds half of all that is allocated.
#[cfg(target_env = "gnu")]
const NO_CACHES: &str = "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0";

/// Has the allocator keep little, by executing the program once more if need
/// be; one that can't be executed, or whose user has settings of their own, goes
/// on as it is. What the engine starts gets an environment of its own.
pub fn keep_little() {
    #[cfg(target_env = "gnu")]
    if std::env::var_os(TUNABLES).is_none() {
        execute_again();
    }
}

#[cfg(target_env = "gnu")]
fn execute_again() {
    use std::{env, os::unix::process::CommandExt as _, process::Command};

    let mut args = env::args_os();
    // Not /proc/self/exe: it would be the name that ps(1) shows.
    if let (Some(name), Ok(program)) = (args.next(), env::current_exe()) {
        // Returns only when it fails.
        drop(Command::new(program).arg0(name).args(args).env(TUNABLES, NO_CACHES).exec());
    }
}

/// Gives memory that nothing is in back to the system, the pages between what
/// is used included, whenever it has been called [`RELEASE_EVERY`] times. To be
/// called at the end of a piece of work; takes under a millisecond when it does
/// anything.
pub fn release_now_and_then() {
    static ENDED: AtomicU32 = AtomicU32::new(1);
    if ENDED.fetch_add(1, Ordering::Relaxed).is_multiple_of(RELEASE_EVERY) {
        release();
    }
}

/// Gives memory that nothing is in back to the system.
pub fn release() {
    // SAFETY: it looks at free memory only, under the allocator's locks.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
