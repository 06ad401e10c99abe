// SPDX-License-Identifier: Apache-2.0
//! What a dead shim leaves: the processes and the directories of a
//! container's cgroup, in every hierarchy. Everything here blocks.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    fs,
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::timeouts;
use crate::{
    error::{Context as _, Error, Kind, Result},
    kernel::pidfd,
};

/// Between two looks at a cgroup whose processes are ending.
const PAUSE: Duration = Duration::from_millis(5);

/// Kills every process in `cgroup` (a path below each hierarchy) and removes
/// it. One that is gone is fine.
///
/// # Errors
/// `Unavailable` when processes survive for [`timeouts::KILLED`]; those of
/// the host.
pub fn destroy(cgroup: &str) -> Result<()> {
    let dirs = existing(cgroup)?;
    let deadline = Instant::now() + timeouts::KILLED;
    loop {
        for dir in &dirs {
            kill(dir).with_context(|| format!("kill what is left in {}", dir.display()))?;
        }
        let mut left = None;
        for dir in &dirs {
            match remove(dir) {
                Ok(()) => {}
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) => left = Some(dir),
                Err(e) => return Err(Error::io(format!("remove cgroup {}", dir.display()), e)),
            }
        }
        let Some(left) = left else { return Ok(()) };
        if Instant::now() > deadline {
            let what = format!("processes in {} have not ended yet", left.display());
            return Err(Error::new(Kind::Unavailable, what));
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "v1 tells of no empty cgroup; bounded by the deadline"
        )]
        std::thread::sleep(PAUSE);
    }
}

/// The names of the cgroups directly below `parent`, in any hierarchy.
///
/// # Errors
/// Those of the host.
pub fn children(parent: &str) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for dir in existing(parent)? {
        // One that has just been removed has none.
        let found = subdirectories(&dir).with_context(|| format!("list {}", dir.display()))?;
        names.extend(found.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
    }
    Ok(names)
}

/// The names in several cgroups.
#[derive(Debug)]
pub struct Children(HashMap<String, HashSet<String>>);

impl Children {
    /// Looks once at each of `parents`.
    ///
    /// # Errors
    /// Those of the host.
    pub fn of(parents: impl Iterator<Item = String>) -> Result<Self> {
        let mut all = HashMap::new();
        for parent in parents {
            if let Entry::Vacant(entry) = all.entry(parent) {
                let names = children(entry.key())?;
                entry.insert(names);
            }
        }
        Ok(Self(all))
    }

    /// Whether `parent`, which has been looked at, has one of this name.
    #[must_use]
    pub fn has(&self, parent: &str, name: &str) -> bool {
        self.0.get(parent).is_some_and(|names| names.contains(name))
    }
}

/// Whether the processes of `cgroup` are frozen; `None` where no hierarchy
/// can say.
///
/// # Errors
/// Those of the host.
pub fn is_frozen(cgroup: &str) -> Result<Option<bool>> {
    let mut frozen = None;
    for dir in existing(cgroup)? {
        // Version 1, then version 2; on a hybrid host the first is in use.
        if let Ok(state) = fs::read_to_string(dir.join("freezer.state")) {
            return Ok(Some(state.trim() != "THAWED"));
        }
        if let Ok(events) = fs::read_to_string(dir.join("cgroup.events")) {
            frozen = events.lines().find_map(|line| line.strip_prefix("frozen ")).map(|value| value == "1");
        }
    }
    Ok(frozen)
}

/// Whether no process is in it, nor in one below it; so is one that is gone.
///
/// # Errors
/// Those of the host.
pub fn is_empty(cgroup: &str) -> Result<bool> {
    fn all(dir: &Path) -> io::Result<bool> {
        for below in subdirectories(dir)? {
            if !all(&below)? {
                return Ok(false);
            }
        }
        Ok(processes(dir)?.is_empty())
    }
    for dir in existing(cgroup)? {
        if !all(&dir).with_context(|| format!("look at the processes in {}", dir.display()))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Its directories, in every hierarchy where it is.
pub(super) fn existing(cgroup: &str) -> Result<Vec<PathBuf>> {
    let relative = cgroup.trim_start_matches('/');
    // Empty would be the root of all: never (D16).
    if relative.is_empty() || relative.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::new(Kind::Internal, format!("{cgroup:?} is not the path of a cgroup")));
    }
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("list cgroup hierarchies")?;
    let mut dirs: Vec<_> = hierarchies(&mountinfo).into_iter().map(|root| root.join(relative)).collect();
    dirs.sort();
    dirs.dedup();
    dirs.retain(|dir| dir.is_dir());
    Ok(dirs)
}

/// Mount points of cgroup file systems: proc_pid_mountinfo(5). Those that show
/// a part of a hierarchy only are left out.
fn hierarchies(mountinfo: &str) -> Vec<PathBuf> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let kind = file_system.split(' ').next()?;
            let mut fields = mount.split(' ').skip(3);
            let (root, target) = (fields.next()?, fields.next()?);
            (matches!(kind, "cgroup" | "cgroup2") && root == "/").then(|| PathBuf::from(target))
        })
        .collect()
}

fn kill(dir: &Path) -> io::Result<()> {
    match fs::write(dir.join("cgroup.kill"), "1") {
        Ok(()) => return Ok(()),
        // Version 1 has no such file.
        Err(e) if gone(&e) || e.kind() == io::ErrorKind::PermissionDenied => {}
        Err(e) => return Err(e),
    }
    for child in subdirectories(dir)? {
        kill(&child)?;
    }
    for pid in processes(dir)? {
        kill_member(dir, pid)?;
    }
    thaw(dir)
}

/// Version 1's freezer holds even those that have been killed.
fn thaw(dir: &Path) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(dir.join("freezer.state"));
    match file.and_then(|mut file| file.write_all(b"THAWED")) {
        Err(e) if !gone(&e) => Err(e),
        _ => Ok(()),
    }
}

fn kill_member(dir: &Path, pid: u32) -> io::Result<()> {
    let pidfd = match pidfd::open(pid) {
        Ok(pidfd) => pidfd,
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(e) => return Err(e),
    };
    // The pid may have been another's when we opened it: is it still listed?
    if !processes(dir)?.contains(&pid) {
        return Ok(());
    }
    match pidfd::signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e),
        _ => Ok(()),
    }
}

fn processes(dir: &Path) -> io::Result<Vec<u32>> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        // 0 is a process of another pid namespace: nothing to signal.
        Ok(text) => Ok(text.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid != 0).collect()),
        Err(e) if gone(&e) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn subdirectories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if gone(&e) => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

fn remove(dir: &Path) -> io::Result<()> {
    for child in subdirectories(dir)? {
        remove(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if !gone(&e) => Err(e),
        _ => Ok(()),
    }
}

fn gone(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_has_just_gone_has_none_below() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("below")).expect("mkdir");
        assert_eq!(subdirectories(dir.path()).expect("list"), [dir.path().join("below")]);
        assert!(subdirectories(&dir.path().join("gone")).expect("list").is_empty());
    }

    #[test]
    fn hierarchies_are_found_in_mountinfo() {
        let text = "\
30 25 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:1 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:28 /part /elsewhere rw - cgroup cgroup rw,memory
";
        assert_eq!(
            hierarchies(text),
            [PathBuf::from("/sys/fs/cgroup/unified"), PathBuf::from("/sys/fs/cgroup/memory")]
        );
    }

    #[test]
    fn a_path_that_is_not_below_the_root_is_refused() {
        for bad in ["", "/", "/../x", "/a/../b", "/a//b"] {
            assert!(destroy(bad).is_err(), "{bad:?}");
        }
        destroy("/berth-test-that-does-not-exist/x").expect("nothing to do");
    }
}
