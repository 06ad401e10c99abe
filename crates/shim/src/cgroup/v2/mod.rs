// SPDX-License-Identifier: Apache-2.0
//! cgroup v2: one tree; a controller works in a directory when the one above
//! has it in `cgroup.subtree_control`.

mod cpu;
mod cpuset;
pub(super) mod devices;
mod memory;
mod pids;

use std::path::Path;

use super::{Resources, devices::Policy, fs};
use crate::runtime::{Error, Kind, Result};

/// Makes the directory of a container below `root`, with limits.
pub(super) fn make(
    root: &Path,
    path: &Path,
    resources: &Resources,
    policy: &Policy,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let dir = root.join(path);
    fs::make(&dir)?;
    enable(root, path, resources)?;
    memory::apply(&dir, &resources.memory, warnings)?;
    pids::apply(&dir, resources.pids)?;
    cpu::apply(&dir, &resources.cpu)?;
    cpuset::apply(&dir, &resources.cpuset)?;
    devices::apply(&dir, policy)
}

/// Enables the controllers that the container uses in every directory above
/// its own, the root's included: a service manager may have left them off.
fn enable(root: &Path, path: &Path, resources: &Resources) -> Result<()> {
    let wanted = [
        ("memory", resources.memory != super::Memory::default()),
        ("pids", resources.pids.is_some()),
        ("cpu", resources.cpu.is_set()),
        ("cpuset", resources.cpuset.is_set()),
    ];
    let counts = ["memory", "pids"];
    let mut dir = root.to_owned();
    for name in path {
        let available = fs::read(&dir, "cgroup.controllers")?;
        let enabled = fs::read(&dir, "cgroup.subtree_control")?;
        let has = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
        for (controller, required) in wanted {
            if !required && !counts.contains(&controller) {
                continue;
            }
            if !has(&available, controller) {
                if required {
                    let why = format!("the host has no {controller} cgroup controller in {}", dir.display());
                    return Err(Error::new(Kind::Unsupported, why));
                }
            } else if !has(&enabled, controller) {
                fs::write(&dir, "cgroup.subtree_control", &format!("+{controller}"))?;
            }
        }
        dir.push(name);
    }
    Ok(())
}

pub(super) use memory::oom_kills;

#[cfg(test)]
mod tests {
    use super::{super::Limit, *};

    fn fake(available: &str, enabled: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(dir.path().join("berth/x")).expect("mkdir");
        for sub in ["", "berth"] {
            std::fs::write(dir.path().join(sub).join("cgroup.controllers"), available).expect("write");
            std::fs::write(dir.path().join(sub).join("cgroup.subtree_control"), enabled).expect("write");
        }
        dir
    }

    #[test]
    fn controllers_are_enabled_all_the_way_down() {
        let dir = fake("cpu pids memory\n", "cpu memory\n");
        enable(dir.path(), Path::new("berth/x"), &Resources::default()).expect("enable");
        for sub in ["", "berth"] {
            let text = fs::read(&dir.path().join(sub), "cgroup.subtree_control").expect("read");
            assert_eq!(text, "+pids", "{sub:?}");
        }
    }

    #[test]
    fn a_controller_that_is_missing_matters_only_for_a_limit() {
        let dir = fake("cpu\n", "\n");
        enable(dir.path(), Path::new("berth/x"), &Resources::default()).expect("nothing is asked for");
        let resources = Resources { pids: Some(Limit::At(1)), ..Resources::default() };
        let e = enable(dir.path(), Path::new("berth/x"), &resources).expect_err("no pids controller");
        assert_eq!(e.kind(), Kind::Unsupported);
    }
}
