// SPDX-License-Identifier: Apache-2.0
//! What an engine could leave behind, seen from outside: processes, cgroups,
//! mounts. Only what carries the test's own marks is ever looked at.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::wait::{DEADLINE, poll};

/// Everything of one engine that is still there; `None` when nothing is.
pub(crate) fn found(dir: &Path, cgroup_parent: &str) -> Option<String> {
    let mut found = Vec::new();
    for pid in processes(dir, cgroup_parent) {
        found.push(format!("process {pid}: {}", describe(pid)));
    }
    for cgroup in cgroups(cgroup_parent).iter().flat_map(|top| children(top)) {
        found.push(format!("cgroup {}", cgroup.display()));
    }
    for mount in mounts(dir) {
        found.push(format!("mount {}", mount.display()));
    }
    let bundles = fs::read_dir(dir.join("state/bundles")).into_iter().flatten().flatten();
    for bundle in bundles.flat_map(|namespace| fs::read_dir(namespace.path()).into_iter().flatten().flatten())
    {
        found.push(format!("bundle {}", bundle.path().display()));
    }
    (!found.is_empty()).then(|| found.join("\n"))
}

/// Removes what [`found`] finds, and the cgroups and mounts around it.
pub(crate) fn remove(dir: &Path, cgroup_parent: &str) {
    // A killed process stays in its cgroup until it is reaped.
    poll(DEADLINE, || {
        for pid in processes(dir, cgroup_parent) {
            send(pid, Signal::SIGKILL);
        }
        for mount in mounts(dir).iter().rev() {
            let _ = umount2(mount, MntFlags::MNT_DETACH);
        }
        let left = cgroups(cgroup_parent).into_iter().filter(|c| remove_tree(c).is_err()).count();
        (left == 0 && mounts(dir).is_empty()).then_some(())
    });
}

/// Sends a signal to a process that the test knows to be its own; one that has
/// just ended is fine.
pub(crate) fn send(pid: i32, signal: Signal) {
    #[expect(clippy::disallowed_methods, reason = "the pid was read a moment ago, in a test")]
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(e) => panic!("kill({pid}, {signal}): {e}"),
    }
}

/// Processes in the engine's cgroups, and shims that were started for it.
pub(crate) fn processes(dir: &Path, cgroup_parent: &str) -> Vec<i32> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if marked(&entry.path(), dir, cgroup_parent) && !gone(pid) {
            pids.push(pid);
        }
    }
    pids
}

/// Whether the process is in one of the cgroups, or was started with them on
/// its command line, or works inside the directory.
fn marked(proc: &Path, dir: &Path, cgroup_parent: &str) -> bool {
    let read = |name: &str| fs::read(proc.join(name)).unwrap_or_default();
    let in_cgroup = String::from_utf8_lossy(&read("cgroup")).lines().any(|line| {
        let path = line.splitn(3, ':').nth(2).unwrap_or("");
        path.strip_prefix(cgroup_parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let shim = read("cmdline").split(|b| *b == 0).any(|word| word == cgroup_parent.as_bytes());
    let inside = fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
    in_cgroup || shim || inside
}

/// Whether the process is dead and only waits for its parent to notice: that
/// parent may be the machine's init, which takes its time.
fn gone(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    state.starts_with('Z') || state.starts_with('X')
}

fn describe(pid: i32) -> String {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&cmdline).replace('\0', " ")
}

/// The engine's own directory in every mounted hierarchy that has it.
fn cgroups(parent: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
    });
    hierarchies.map(|path| path.join(parent.trim_start_matches('/'))).filter(|path| path.is_dir()).collect()
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| e.path()).filter(|p| p.is_dir()).collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(()),
        result => result,
    }
}

/// Mounts at or below `dir` in the host's table.
fn mounts(dir: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let points = table.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}
