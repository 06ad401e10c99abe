// SPDX-License-Identifier: Apache-2.0
//! Read-only overlays on the host, and what is mounted where. What of them is
//! whose is the caller's to know.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::host::unescape;

/// Stacks `layers`, the top first and at least two, at `at`. Nothing in it can
/// be executed with other rights, and its devices are none. `source` is what
/// the mount table calls it.
///
/// # Errors
/// The kernel's.
pub fn overlay(layers: &[OwnedFd], at: &Path, source: &str) -> nix::Result<()> {
    // By their descriptors: all options have to fit into a page, and a path may
    // hold what overlayfs gives a meaning.
    let names: Vec<_> = layers.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd())).collect();
    let options = format!("lowerdir={}", names.join(":"));
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(source), at, Some("overlay"), flags, Some(&*options))
}

/// Takes the uppermost mount at `path` away; with `detach` also one that is in
/// use, which then lasts for its users alone.
///
/// # Errors
/// The kernel's: `EBUSY` for one in use.
pub fn unmount(path: &Path, detach: bool) -> nix::Result<()> {
    let how = if detach { MntFlags::MNT_DETACH } else { MntFlags::empty() };
    umount2(path, how | MntFlags::UMOUNT_NOFOLLOW)
}

/// The source of the uppermost mount at exactly `path`, when there is one.
///
/// # Errors
/// Those of procfs.
pub fn source_at(path: &Path) -> io::Result<Option<String>> {
    Ok(source_in(&fs::read_to_string("/proc/self/mountinfo")?, path))
}

fn source_in(table: &str, path: &Path) -> Option<String> {
    let mut at_path = table.lines().filter(|line| {
        let point = line.split(' ').nth(4);
        point.is_some_and(|point| Path::new(&unescape(point)) == path)
    });
    // The last one covers those before.
    let (_, rest) = at_path.next_back()?.split_once(" - ")?;
    rest.split(' ').nth(1).map(unescape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_mount_counts() {
        let table = "1 2 8:1 / /mnt rw - ext4 /dev/a rw\n2 1 0:5 / /mnt/with\\040blank ro - overlay berth:1 ro\n\
                     3 2 0:6 / /mnt/with\\040blank ro - overlay berth:2 ro\n";
        let found = |path: &str| source_in(table, Path::new(path));
        assert_eq!(found("/mnt/with blank").as_deref(), Some("berth:2"));
        assert_eq!(found("/mnt").as_deref(), Some("/dev/a"));
        assert_eq!(found("/mnt/with"), None);
    }
}
