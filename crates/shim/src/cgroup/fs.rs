// SPDX-License-Identifier: Apache-2.0
//! Files and directories of a cgroup file system.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    kernel::SysError,
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

/// Processes of a cgroup and of those that the container made below it.
pub(super) fn processes(dir: &Path) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for dir in tree(dir)? {
        match fs::read_to_string(dir.join("cgroup.procs")) {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
            Err(e) if is_gone(&e) => {}
            Err(e) => {
                return Err(SysError::from_io(format!("read({:?})", dir.join("cgroup.procs")), &e).into());
            }
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Removes a cgroup and those below it; `Ok` when there is none.
pub(super) fn remove(dir: &Path, deadline: Instant) -> Result<()> {
    for dir in tree(dir)?.iter().rev() {
        loop {
            match fs::remove_dir(dir) {
                Ok(()) => break,
                Err(e) if is_gone(&e) => break,
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                    pause();
                }
                Err(e) => return Err(SysError::from_io(format!("rmdir({dir:?})"), &e).into()),
            }
        }
    }
    Ok(())
}

/// Waits a moment, for a caller with a deadline.
#[expect(clippy::disallowed_methods, reason = "no event says that a cgroup can be removed")]
pub(super) fn pause() {
    std::thread::sleep(RETRY_EVERY);
}

/// `dir` and all directories below it, parents first.
fn tree(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = all.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if is_gone(&e) => continue,
            Err(e) => return Err(SysError::from_io(format!("open({dir:?}, O_DIRECTORY)"), &e).into()),
        };
        let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
        all.extend(entries.flatten().filter(is_dir).map(|entry| entry.path()));
    }
    Ok(all)
}

/// Whether a cgroup has been removed meanwhile.
fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_removed_from_the_bottom() {
        let dir = tempfile::tempdir().expect("tempdir");
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).expect("mkdir");
        fs::create_dir_all(top.join("c")).expect("mkdir");
        remove(&top, Instant::now()).expect("remove");
        assert!(!top.exists());
        remove(&top, Instant::now()).expect("again");
    }

    #[test]
    fn processes_of_the_whole_tree_are_found_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("a")).expect("mkdir");
        fs::write(dir.path().join("cgroup.procs"), "3\n1\n").expect("write");
        fs::write(dir.path().join("a/cgroup.procs"), "1\n2\n").expect("write");
        assert_eq!(processes(dir.path()).expect("pids"), [1, 2, 3]);
    }

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("f"), "oom 4\noom_kill_disable 0\noom_kill 2\n").expect("write");
        assert_eq!(counter(dir.path(), "f", "oom_kill"), Some(2));
        assert_eq!(counter(dir.path(), "f", "x"), None);
        assert_eq!(counter(dir.path(), "none", "x"), None);
    }
}
