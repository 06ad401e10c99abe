// SPDX-License-Identifier: Apache-2.0
//! cgroup v1: a tree per controller. A container joins only those that it
//! uses, because each costs a directory and an attach.

mod cpu;
mod cpuset;
mod devices;
mod memory;
mod pids;

use std::path::{Path, PathBuf};

use super::{Resources, devices::Policy, fs};
use crate::runtime::{Error, Kind, Result};

/// A controller that a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Devices,
    Memory,
    Pids,
    Cpu,
    CpuSet,
}

impl Controller {
    pub(super) const ALL: [Self; 5] = [Self::Devices, Self::Memory, Self::Pids, Self::Cpu, Self::CpuSet];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::CpuSet => "cpuset",
        }
    }

    /// Whether a container can't be without it.
    fn is_required(self, resources: &Resources, devices: &Policy) -> bool {
        match self {
            Self::Devices => !devices.allow || !devices.exceptions.is_empty(),
            Self::Memory => resources.memory != super::Memory::default(),
            Self::Pids => resources.pids.is_some(),
            Self::Cpu => resources.cpu.is_set(),
            Self::CpuSet => resources.cpuset.is_set(),
        }
    }

    /// Whether a container gets it for its counters: out-of-memory kills and
    /// processes.
    fn counts(self) -> bool {
        matches!(self, Self::Memory | Self::Pids)
    }
}

/// Makes the directories that a container uses below `root`, with limits.
/// What the kernel can't do, and can be done without, goes to `warnings`.
pub(super) fn make(
    root: &Path,
    path: &Path,
    resources: &Resources,
    devices: &Policy,
    warnings: &mut Vec<String>,
) -> Result<Vec<(Controller, PathBuf)>> {
    let mut made = Vec::new();
    for controller in Controller::ALL {
        let required = controller.is_required(resources, devices);
        let hierarchy = root.join(controller.name());
        if !required && !controller.counts() {
            continue;
        }
        if !hierarchy.join("cgroup.procs").exists() {
            if required {
                let why = format!("the host has no {} cgroup controller", controller.name());
                return Err(Error::new(Kind::Unsupported, why));
            }
            continue;
        }
        let dir = hierarchy.join(path);
        fs::make(&dir)?;
        match controller {
            Controller::Devices => devices::apply(&dir, devices)?,
            Controller::Memory => memory::apply(&dir, &resources.memory, warnings)?,
            Controller::Pids => pids::apply(&dir, resources.pids)?,
            Controller::Cpu => cpu::apply(&dir, &resources.cpu)?,
            Controller::CpuSet => cpuset::apply(&hierarchy, path, &resources.cpuset)?,
        }
        made.push((controller, dir));
    }
    Ok(made)
}

pub(super) use memory::oom_kills;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_is_joined() {
        let dir = tempfile::tempdir().expect("tempdir");
        for name in ["memory", "pids", "cpu"] {
            std::fs::create_dir(dir.path().join(name)).expect("mkdir");
            std::fs::write(dir.path().join(name).join("cgroup.procs"), "").expect("write");
        }
        let all = Policy { allow: true, exceptions: Vec::new() };
        let path = Path::new("berth/x");
        let made = make(dir.path(), path, &Resources::default(), &all, &mut Vec::new()).expect("make");
        let expected = [
            (Controller::Memory, dir.path().join("memory/berth/x")),
            (Controller::Pids, dir.path().join("pids/berth/x")),
        ];
        assert_eq!(made, expected);
        assert!(!dir.path().join("cpu/berth").exists());
    }

    #[test]
    fn a_limit_that_nobody_can_keep_is_an_error() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = Path::new("berth/x");
        let e = make(dir.path(), path, &Resources::default(), &Policy::container(), &mut Vec::new());
        assert_eq!(e.expect_err("no devices controller").kind(), Kind::Unsupported);
    }
}
