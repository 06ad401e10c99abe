// SPDX-License-Identifier: Apache-2.0
//! All cgroups below one. A container may have made thousands, and so deep
//! that no path reaches them: each step is taken from a descriptor, and two
//! are enough for any depth.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    time::Instant,
};

use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, openat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

use super::fs::pause;
use crate::{
    kernel::{self, SysError},
    runtime::Result,
};

/// Processes of a cgroup and of those below it.
pub(super) fn processes(top: &Path) -> Result<Vec<u32>> {
    let mut pids: Vec<u32> = Vec::new();
    walk(
        top,
        |dir| {
            let text = read_at(dir, "cgroup.procs")?;
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            Ok(())
        },
        |_, _| Ok(()),
    )?;
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Removes a cgroup and those below it; `Ok` when there is none.
pub(super) fn remove(top: &Path, deadline: Instant) -> Result<()> {
    walk(top, |_| Ok(()), |dir, name| remove_at(dir.as_fd(), name, deadline))?;
    Ok(remove_at(AT_FDCWD, top.as_os_str(), deadline)?)
}

/// Writes `value` to `file` of a cgroup and of those below it.
pub(super) fn write(top: &Path, file: &str, value: &str) -> Result<()> {
    Ok(walk(top, |dir| write_at(dir, file, value), |_, _| Ok(()))?)
}

/// The sum of `key` in `file` of a cgroup and of those below it.
pub(super) fn sum(top: &Path, file: &str, key: &str) -> Result<u64> {
    let mut sum = 0_u64;
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok();
    walk(
        top,
        |dir| {
            sum = sum.saturating_add(read_at(dir, file)?.lines().find_map(value).unwrap_or(0));
            Ok(())
        },
        |_, _| Ok(()),
    )?;
    Ok(sum)
}

/// A directory on the way down.
struct Level {
    /// In the one above it.
    name: OsString,
    /// Those that are still to be entered.
    below: Vec<OsString>,
}

/// Calls `enter` with each directory, those above first, and `leave` with its
/// parent and its name when all below it has been seen. What is removed
/// meanwhile has nothing to be seen.
fn walk(
    top: &Path,
    mut enter: impl FnMut(&OwnedFd) -> kernel::Result<()>,
    mut leave: impl FnMut(&OwnedFd, &OsStr) -> kernel::Result<()>,
) -> kernel::Result<()> {
    let mut look = |dir: &OwnedFd, name: OsString| -> kernel::Result<Option<Level>> {
        gone_is_none(enter(dir).and_then(|()| Ok(Level { name, below: directories(dir)? })))
    };
    let Some(mut here) = gone_is_none(open(AT_FDCWD, top.as_os_str()))? else { return Ok(()) };
    let mut levels: Vec<_> = look(&here, OsString::new())?.into_iter().collect();
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.below.pop() {
            let Some(dir) = gone_is_none(open(here.as_fd(), &name))? else { continue };
            if let Some(level) = look(&dir, name)? {
                levels.push(level);
                here = dir;
            }
            continue;
        }
        let Some(done) = levels.pop().filter(|_| !levels.is_empty()) else { break };
        let depth = levels.len();
        let above = match gone_is_none(open(here.as_fd(), OsStr::new("..")))? {
            Some(above) => Some(above),
            None => again(top, &mut levels)?,
        };
        let Some(above) = above else { break };
        here = above;
        // Of one whose parent is gone as well nothing is left.
        if levels.len() == depth {
            leave(&here, &done.name)?;
        }
    }
    Ok(())
}

/// From the top to the last of `levels`, or as far as there is something.
fn again(top: &Path, levels: &mut Vec<Level>) -> kernel::Result<Option<OwnedFd>> {
    let Some(mut here) = gone_is_none(open(AT_FDCWD, top.as_os_str()))? else { return Ok(None) };
    for depth in 1..levels.len() {
        let Some(dir) = gone_is_none(open(here.as_fd(), &levels[depth].name))? else {
            levels.truncate(depth);
            break;
        };
        here = dir;
    }
    Ok(Some(here))
}

fn open(dir: std::os::fd::BorrowedFd<'_>, name: &OsStr) -> kernel::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    kernel::sys(openat(dir, name, flags, Mode::empty()), || format!("openat(…, {name:?}, O_DIRECTORY)"))
}

fn directories(dir: &OwnedFd) -> kernel::Result<Vec<OsString>> {
    let failed = |e| SysError::new(format!("getdents64({})", kernel::fd(dir)), e);
    // A descriptor of its own, since reading moves its position.
    let mut entries = Dir::from_fd(open(dir.as_fd(), OsStr::new("."))?).map_err(failed)?;
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == Some(Type::Directory) && name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

fn remove_at(dir: std::os::fd::BorrowedFd<'_>, name: &OsStr, deadline: Instant) -> kernel::Result<()> {
    loop {
        match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
            // The kernel has not let go of the last process.
            Err(Errno::EBUSY) if Instant::now() < deadline => pause(),
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(SysError::new(format!("unlinkat(…, {name:?}, AT_REMOVEDIR)"), e)),
        }
    }
}

fn read_at(dir: &OwnedFd, file: &str) -> kernel::Result<String> {
    let mut text = String::new();
    let mut file = open_file(dir, file, OFlag::O_RDONLY)?;
    match file.read_to_string(&mut text) {
        Ok(_) => Ok(text),
        // Threads of a process that is listed in a cgroup above.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(String::new()),
        Err(e) => Err(failed(dir, "read", &e)),
    }
}

fn write_at(dir: &OwnedFd, file: &str, value: &str) -> kernel::Result<()> {
    let mut file = open_file(dir, file, OFlag::O_WRONLY)?;
    file.write_all(value.as_bytes()).map_err(|e| failed(dir, "write", &e))
}

fn open_file(dir: &OwnedFd, name: &str, flags: OFlag) -> kernel::Result<File> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty()).map(File::from);
    kernel::sys(file, || format!("openat({}, {name:?})", kernel::fd(dir)))
}

fn failed(dir: &OwnedFd, call: &str, e: &io::Error) -> SysError {
    SysError::from_io(format!("{call}({}, …)", kernel::fd(dir)), e)
}

/// A cgroup that has been removed meanwhile is none.
fn gone_is_none<T>(result: kernel::Result<T>) -> kernel::Result<Option<T>> {
    match result {
        Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ENODEV) => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn a_tree_that_no_path_reaches_is_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let top = dir.path().join("top");
        fs::create_dir(&top).expect("mkdir");
        let mut here = open(AT_FDCWD, top.as_os_str()).expect("open");
        let name = OsString::from("x".repeat(200));
        // 40 times 200 characters: twice as much as a path may have.
        for _ in 0..40 {
            nix::sys::stat::mkdirat(&here, name.as_os_str(), Mode::S_IRWXU).expect("mkdirat");
            here = open(here.as_fd(), &name).expect("open");
        }
        remove(&top, Instant::now()).expect("remove");
        assert!(!top.exists());
    }

    #[test]
    fn processes_of_the_whole_tree_are_found_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(dir.path().join("a/b")).expect("mkdir");
        for (file, text) in
            [("cgroup.procs", "3\n1\n"), ("a/cgroup.procs", "1\n2\n"), ("a/b/cgroup.procs", "9\n")]
        {
            fs::write(dir.path().join(file), text).expect("write");
        }
        assert_eq!(processes(dir.path()).expect("pids"), [1, 2, 3, 9]);
        assert!(processes(&dir.path().join("none")).expect("pids").is_empty());
    }

    #[test]
    fn each_is_written_and_counted() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("a")).expect("mkdir");
        for file in ["counts", "a/counts"] {
            fs::write(dir.path().join(file), "oom_kill_disable 7\noom_kill 2\n").expect("write");
        }
        assert_eq!(sum(dir.path(), "counts", "oom_kill").expect("sum"), 4);
        write(dir.path(), "counts", "x").expect("write");
        assert!(fs::read_to_string(dir.path().join("a/counts")).expect("read").starts_with('x'));
    }

    #[test]
    fn one_that_vanishes_takes_nothing_with_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["a/b/c", "d", "e/f"] {
            fs::create_dir_all(dir.path().join(name)).expect("mkdir");
        }
        let mut seen = 0;
        walk(
            dir.path(),
            |_| {
                seen += 1;
                // While in its depth, all of it goes.
                let _ = fs::remove_dir_all(dir.path().join("a"));
                Ok(())
            },
            |_, _| Ok(()),
        )
        .expect("walk");
        assert!(seen >= 4, "the others are seen: {seen}");
    }
}
