// SPDX-License-Identifier: Apache-2.0
//! A failed system call, and how it prints.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd as _},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use nix::errno::Errno;

/// What a wrapper returns.
pub type Result<T> = std::result::Result<T, SysError>;

/// A system call that failed: `openat2([7]</run/x>, "etc", …): EXDEV (…)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    call: String,
    errno: Errno,
}

impl SysError {
    /// `call` is the call with its arguments, as strace has them.
    #[must_use]
    pub fn new(call: impl Into<String>, errno: Errno) -> Self {
        Self { call: call.into(), errno }
    }

    /// For a call made through the standard library.
    #[must_use]
    pub fn from_io(call: impl Into<String>, e: &std::io::Error) -> Self {
        Self::new(call, e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }

    /// The error number.
    #[must_use]
    pub fn errno(&self) -> Errno {
        self.errno
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} ({})", self.call, self.errno, self.errno.desc())
    }
}

impl std::error::Error for SysError {}

/// A descriptor as strace prints it: `[7]</run/x>`.
///
/// Only for messages: the link is read from whatever `/proc` is there, and
/// nothing is opened through it. After [`forget_names`] only the number.
#[must_use]
pub fn fd(fd: impl AsFd) -> String {
    let number = fd.as_fd().as_raw_fd();
    if NAMELESS.load(Ordering::Relaxed) {
        return format!("[{number}]");
    }
    match std::fs::read_link(Path::new("/proc/self/fd").join(number.to_string())) {
        Ok(path) => format!("[{number}]<{}>", path.display()),
        Err(_) => format!("[{number}]"),
    }
}

/// Set for good by a process that enters a container.
static NAMELESS: AtomicBool = AtomicBool::new(false);

/// From here on `/proc` is a container's, which could make whoever looks there
/// wait: not even for a message.
pub fn forget_names() {
    NAMELESS.store(true, Ordering::Relaxed);
}

/// Names the call of a nix result; `call` runs only when it failed.
///
/// # Errors
/// The same as `result`, with its call.
pub fn sys<T>(result: nix::Result<T>, call: impl FnOnce() -> String) -> Result<T> {
    result.map_err(|errno| SysError::new(call(), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_like_strace() {
        let dir = std::fs::File::open("/").expect("open /");
        let e = SysError::new(format!("openat2({}, \"etc\", …)", fd(&dir)), Errno::EXDEV);
        let number = dir.as_raw_fd();
        assert_eq!(e.to_string(), format!("openat2([{number}]</>, \"etc\", …): EXDEV (Cross-device link)"));
    }
}
