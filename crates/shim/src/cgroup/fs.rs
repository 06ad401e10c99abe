// SPDX-License-Identifier: Apache-2.0
//! Files and directories of a cgroup file system.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    kernel::{Procfs, SysError},
    runtime::{Error, Kind, Result},
};

/// rmdir answers EBUSY until the kernel has let go of the last process.
const RETRY_EVERY: Duration = Duration::from_millis(1);

/// Writes `value` to `dir/file` in one call.
pub(super) fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    Ok(try_write(dir, file, value)?)
}

/// As [`write()`], for a value of the specification: an error names its field,
/// and says whether the value, or the kernel, is to blame.
pub(super) fn set(dir: &Path, file: &str, value: &str, field: &str) -> Result<()> {
    try_write(dir, file, value).map_err(|e| refused(&e, field))
}

/// The error of a value that the kernel didn't take.
pub(super) fn refused(e: &SysError, field: &str) -> Error {
    match e.errno() {
        Errno::ENOENT => {
            Error::new(Kind::Unsupported, format!("{field}: the host's kernel can't do it: {e}"))
        }
        Errno::EINVAL | Errno::ERANGE | Errno::ENODEV | Errno::EBUSY => {
            Error::invalid(format!("{field}: {e}"))
        }
        _ => Error::new(Kind::Os, format!("{field}: {e}")),
    }
}

/// As [`write()`], for a caller that knows what to do about an errno.
pub(super) fn try_write(dir: &Path, file: &str, value: &str) -> crate::kernel::Result<()> {
    try_write_each(dir, file, [value])
}

/// Writes each value in a call of its own: the kernel takes one rule a write.
pub(super) fn try_write_each<S: AsRef<str>>(
    dir: &Path,
    file: &str,
    values: impl IntoIterator<Item = S>,
) -> crate::kernel::Result<()> {
    let path = dir.join(file);
    let open = OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(&path);
    let mut file = open.map_err(|e| SysError::from_io(format!("open({path:?}, O_WRONLY)"), &e))?;
    for value in values {
        let value = value.as_ref();
        file.write_all(value.as_bytes())
            .map_err(|e| SysError::from_io(format!("write({path:?}, {value:?})"), &e))?;
    }
    Ok(())
}

/// Whether `dir` has `file`.
pub(super) fn has(dir: &Path, file: &str) -> bool {
    dir.join(file).exists()
}

/// A file that holds one number, or `max`.
pub(super) fn number(dir: &Path, file: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    match text.trim() {
        "max" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The content of `dir/file`.
pub(super) fn read(dir: &Path, file: &str) -> Result<String> {
    let path = dir.join(file);
    fs::read_to_string(&path).map_err(|e| SysError::from_io(format!("read({path:?})"), &e).into())
}

/// Waits until `dir/cgroup.events` has the line `wanted`; false at the
/// deadline. The kernel wakes whoever polls the file when it changes.
pub(super) fn wait_for_event(dir: &Path, wanted: &str, deadline: Instant) -> Result<bool> {
    let path = dir.join("cgroup.events");
    let failed = |e: io::Error| SysError::from_io(format!("read({path:?})"), &e);
    let mut file = File::open(&path).map_err(failed)?;
    loop {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(failed)?;
        if text.lines().any(|line| line == wanted) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        // Woken or not, the file is read again.
        let _ = poll(&mut [PollFd::new(file.as_fd(), PollFlags::POLLPRI)], timeout);
    }
}

/// The value of `key` in a file of lines `key value`.
pub(super) fn counter(dir: &Path, file: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(dir.join(file)).ok()?;
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

/// Makes a directory and those above it.
pub(super) fn make(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(|e| SysError::from_io(format!("mkdir({dir:?})"), &e).into())
}

/// Whether the directory that `dir` is to be in is somebody else's.
pub(super) fn is_forbidden(dir: &Path) -> bool {
    let there = dir.ancestors().skip(1).find(|dir| dir.exists());
    there.is_some_and(|dir| {
        let access = nix::unistd::access(dir, nix::unistd::AccessFlags::W_OK);
        matches!(access, Err(Errno::EACCES | Errno::EROFS | Errno::EPERM))
    })
}

/// Whether this process is not root, or not the host's.
pub(super) fn is_unprivileged() -> bool {
    // The whole range of users maps to itself only in the first namespace.
    let map = Procfs::of_host().and_then(|proc| proc.read_text("self/uid_map")).unwrap_or_default();
    !nix::unistd::geteuid().is_root() || !map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Waits a moment, for a caller with a deadline.
#[expect(clippy::disallowed_methods, reason = "no event says that a cgroup can be removed")]
pub(super) fn pause() {
    std::thread::sleep(RETRY_EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("f"), "oom 4\noom_kill_disable 0\noom_kill 2\n").expect("write");
        assert_eq!(counter(dir.path(), "f", "oom_kill"), Some(2));
        assert_eq!(counter(dir.path(), "f", "x"), None);
        assert_eq!(counter(dir.path(), "none", "x"), None);
    }
}
