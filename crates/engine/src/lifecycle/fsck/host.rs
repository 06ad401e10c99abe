// SPDX-License-Identifier: Apache-2.0
//! The host's own mount table never shows a container.

use std::{fs, path::Path};

use super::{Report, world::World};
use crate::error::{Context as _, Result};

pub(super) fn check(world: &World<'_>, report: &mut Report) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the host's mounts")?;
    let ours = ["snapshots", "containers"].map(|dir| world.places.root.join(dir));
    let bundles = world.places.state.join("bundles");
    for point in below(&table, &[&ours[0], &ours[1], &bundles]) {
        report.wrong("mount", point, "the host sees it", "no mount");
    }
    Ok(())
}

/// Mount points deeper than one of `dirs`, which may be mounts themselves:
/// proc_pid_mountinfo(5).
fn below(mountinfo: &str, dirs: &[&Path]) -> Vec<String> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let inside =
        |point: &&str| dirs.iter().any(|dir| Path::new(point) != *dir && Path::new(point).starts_with(dir));
    points.filter(inside).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_for_all_is_fine_and_a_mount_inside_is_not() {
        let table = "1 2 8:1 / /r rw - ext4 a rw\n3 1 8:2 / /r/snapshots rw - ext4 b rw\n4 3 0:5 / /r/snapshots/7/fs/x rw - tmpfs t rw\n";
        assert_eq!(below(table, &[Path::new("/r/snapshots")]), ["/r/snapshots/7/fs/x"]);
    }
}
