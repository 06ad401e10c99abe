// SPDX-License-Identifier: Apache-2.0
//! The host's processes: in which cgroups they are, and whose file system
//! they see.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use crate::error::{Context as _, Result};

/// A process of somebody else's mount namespace.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    pub pid: u32,
    /// The directory of the snapshot that its root, or a mount of it, writes to.
    pub snapshot: String,
}

/// All processes that see a writable layer of ours.
#[derive(Debug, Default)]
pub(super) struct Processes {
    pub guests: Vec<Guest>,
}

impl Processes {
    /// Looks at all processes. Those that end meanwhile are passed over.
    pub(super) fn see(snapshots: &Path) -> Result<Self> {
        let ours = fs::read_link("/proc/self/ns/mnt").context("look at our own mount namespace")?;
        let mut of_namespace: HashMap<PathBuf, Option<String>> = HashMap::from([(ours, None)]);
        let mut guests = Vec::new();
        for entry in fs::read_dir("/proc").context("list processes")? {
            let name = entry.context("list processes")?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            let proc = PathBuf::from(format!("/proc/{pid}"));
            // A zombie and a kernel's thread have none.
            let Ok(namespace) = fs::read_link(proc.join("ns/mnt")) else { continue };
            let snapshot = match of_namespace.get(&namespace) {
                Some(known) => known.clone(),
                None => {
                    let Ok(mounts) = fs::read_to_string(proc.join("mountinfo")) else { continue };
                    let found = writable_layer(&mounts, snapshots);
                    of_namespace.insert(namespace, found.clone());
                    found
                }
            };
            guests.extend(snapshot.map(|snapshot| Guest { pid, snapshot }));
        }
        Ok(Self { guests })
    }
}

/// Whether a process is in `cgroup`, in any hierarchy; `None` when it has ended.
pub(super) fn is_in(pid: u32, cgroup: &str) -> Option<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // One that has ended is in the root of them all.
    if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])) {
        return None;
    }
    Some(
        text.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
            path.strip_prefix(cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }),
    )
}

/// The snapshot below `snapshots` that an overlay of these mounts writes to:
/// proc_pid_mountinfo(5).
fn writable_layer(mountinfo: &str, snapshots: &Path) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let (_, file_system) = line.split_once(" - ")?;
        let options = file_system.strip_prefix("overlay ")?.rsplit(' ').next()?;
        let upper = options.split(',').find_map(|option| option.strip_prefix("upperdir="))?;
        let below = Path::new(upper).strip_prefix(snapshots).ok()?;
        below.iter().next()?.to_str().map(str::to_owned)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_tells_whose_layer_it_writes_to() {
        let line = "35 34 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/r/snapshots/1/fs,upperdir=/r/snapshots/7/fs,workdir=/r/snapshots/7/work";
        let mounts = format!("1 2 0:3 / /proc rw - proc proc rw\n{line}\n");
        assert_eq!(writable_layer(&mounts, Path::new("/r/snapshots")), Some("7".to_owned()));
        assert_eq!(writable_layer(&mounts, Path::new("/other/snapshots")), None);
        assert_eq!(writable_layer("", Path::new("/")), None);
    }

    #[test]
    fn we_are_in_our_own_cgroup_and_nobody_is_in_another() {
        let us = std::process::id();
        assert_eq!(is_in(us, "/berth-test-that-does-not-exist"), Some(false));
        assert_eq!(is_in(u32::MAX - 1, "/"), None);
    }
}
