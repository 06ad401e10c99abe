// SPDX-License-Identifier: Apache-2.0
//! cgroup v1: a tree per controller. A container joins only those that it
//! uses, because each costs a directory and an attach.

mod blkio;
mod cpu;
mod cpuset;
mod devices;
mod freezer;
mod memory;
mod network;
mod pids;

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Limits, Resources, devices::Policy, fs, hugetlb, rdma};
use crate::runtime::{Error, Kind, Result};

/// A controller that a container uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Devices,
    Memory,
    Pids,
    CpuAcct,
    BlkIo,
    Cpu,
    CpuSet,
    HugeTlb,
    NetCls,
    NetPrio,
    Rdma,
    Freezer,
    /// No controller: how systemd finds the processes of its units.
    Systemd,
}

impl Controller {
    pub(super) const ALL: [Self; 13] = [
        Self::Devices,
        Self::Memory,
        Self::Pids,
        Self::CpuAcct,
        Self::BlkIo,
        Self::Cpu,
        Self::CpuSet,
        Self::HugeTlb,
        Self::NetCls,
        Self::NetPrio,
        Self::Rdma,
        Self::Freezer,
        Self::Systemd,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::CpuAcct => "cpuacct",
            Self::BlkIo => "blkio",
            Self::Cpu => "cpu",
            Self::CpuSet => "cpuset",
            Self::HugeTlb => "hugetlb",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::Rdma => "rdma",
            Self::Freezer => "freezer",
            Self::Systemd => "systemd",
        }
    }

    /// The field of the specification that a container can't be without this
    /// controller for.
    fn required_by(self, resources: &Resources, devices: Option<&Policy>) -> Option<&'static str> {
        let (field, is_set) = match self {
            Self::Devices => {
                let limited = |policy: &Policy| !policy.allow || !policy.exceptions.is_empty();
                ("linux.resources.devices", devices.is_some_and(limited))
            }
            Self::Memory => ("linux.resources.memory", resources.memory.is_set()),
            Self::Pids => ("linux.resources.pids", resources.pids.is_some()),
            Self::Cpu => ("linux.resources.cpu", resources.cpu.is_set()),
            Self::CpuSet => ("linux.resources.cpu", resources.cpuset.is_set()),
            Self::BlkIo => ("linux.resources.blockIO", resources.block_io.is_set()),
            Self::HugeTlb => ("linux.resources.hugepageLimits", !resources.huge_pages.is_empty()),
            Self::NetCls => ("linux.resources.network.classID", resources.network.class_id.is_some()),
            Self::NetPrio => ("linux.resources.network.priorities", !resources.network.priorities.is_empty()),
            Self::Rdma => ("linux.resources.rdma", !resources.rdma.is_empty()),
            Self::CpuAcct | Self::Freezer | Self::Systemd => return None,
        };
        is_set.then_some(field)
    }

    /// Whether a container gets it, where it's there, without asking for it:
    /// for its counters, or to be stopped.
    fn is_useful(self, wanted: &Wanted<'_>) -> bool {
        match self {
            Self::Memory | Self::Pids | Self::CpuAcct | Self::BlkIo => true,
            // In a v2 tree freezing works better.
            Self::Freezer => wanted.unified.is_none(),
            Self::Systemd => wanted.by_systemd,
            _ => false,
        }
    }
}

/// What a container has of one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) controller: Controller,
    pub(super) dir: PathBuf,
    /// Mounted together with one that comes before it: entered already.
    pub(super) entered: bool,
}

/// Which hierarchies a container needs.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) limits: &'a Limits<'a>,
    /// The v2 directory beside them.
    pub(super) unified: Option<&'a Path>,
    pub(super) by_systemd: bool,
}

/// Makes the directories that a container uses below `root`, with limits.
/// What the kernel can't do, and can be done without, goes to `warnings`.
pub(super) fn make(
    root: &Path,
    path: &Path,
    wanted: &Wanted<'_>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Member>> {
    check_unified(wanted.limits.resources)?;
    let mut made: Vec<Member> = Vec::new();
    let mut identities = Vec::new();
    for controller in Controller::ALL {
        let required = controller.required_by(wanted.limits.resources, Some(wanted.limits.devices));
        if required.is_none() && !controller.is_useful(wanted) {
            continue;
        }
        let hierarchy = root.join(controller.name());
        let Some(identity) = identity(&hierarchy) else {
            required.map_or(Ok(()), |field| Err(missing(controller, field)))?;
            continue;
        };
        let dir = hierarchy.join(path);
        if let Err(e) = fs::make(&dir) {
            without(controller, required, &dir, e, warnings)?;
            continue;
        }
        if controller == Controller::CpuSet {
            cpuset::inherit(&hierarchy, path)?;
        }
        apply(controller, &dir, wanted.limits.resources, warnings)?;
        if controller == Controller::Devices {
            devices::apply(&dir, wanted.limits.devices, warnings)?;
        }
        made.push(Member { controller, dir, entered: identities.contains(&identity) });
        identities.push(identity);
    }
    Ok(made)
}

/// What becomes of a container whose directory can't be made. An unprivileged
/// user makes no device files, so that denying others changes nothing.
fn without(
    controller: Controller,
    required: Option<&str>,
    dir: &Path,
    e: Error,
    warnings: &mut Vec<String>,
) -> Result<()> {
    match required {
        _ if !fs::is_forbidden(dir) => return Err(e),
        // Nothing was asked of it.
        None => {}
        Some(field) if controller == Controller::Devices && fs::is_unprivileged() => {
            warnings.push(format!("{field} is discarded: {e}"));
        }
        Some(field) => {
            let why = format!("{field}: {e}: the cgroup is not delegated to this user");
            return Err(Error::new(Kind::Unsupported, why));
        }
    }
    Ok(())
}

/// Changes the limits of a container that runs; `joined` are the hierarchies
/// that it was not in before, and whose directories have just been made.
pub(super) fn update(
    root: &Path,
    path: &Path,
    members: &mut Vec<Member>,
    resources: &Resources,
    devices: Option<&Policy>,
    warnings: &mut Vec<String>,
) -> Result<Vec<PathBuf>> {
    check_unified(resources)?;
    let mut joined = Vec::new();
    for controller in Controller::ALL {
        let Some(field) = controller.required_by(resources, devices) else { continue };
        let known = members.iter().find(|member| member.controller == controller);
        let dir = if let Some(member) = known {
            member.dir.clone()
        } else {
            let hierarchy = root.join(controller.name());
            if identity(&hierarchy).is_none() {
                return Err(missing(controller, field));
            }
            let dir = hierarchy.join(path);
            fs::make(&dir)?;
            if controller == Controller::CpuSet {
                cpuset::inherit(&hierarchy, path)?;
            }
            members.push(Member { controller, dir: dir.clone(), entered: false });
            joined.push(dir.clone());
            dir
        };
        apply(controller, &dir, resources, warnings)?;
        if let (Controller::Devices, Some(policy)) = (controller, devices) {
            devices::update(&dir, policy, warnings)?;
        }
    }
    Ok(joined)
}

/// What a container at `path` has, made by whomever.
pub(super) fn find(root: &Path, path: &Path) -> Vec<Member> {
    let mut identities = Vec::new();
    let mut found = Vec::new();
    for controller in Controller::ALL {
        let dir = root.join(controller.name()).join(path);
        if let Some(identity) = identity(&dir) {
            found.push(Member { controller, dir, entered: identities.contains(&identity) });
            identities.push(identity);
        }
    }
    found
}

/// Writes the numbers of one controller.
fn apply(
    controller: Controller,
    dir: &Path,
    resources: &Resources,
    warnings: &mut Vec<String>,
) -> Result<()> {
    match controller {
        Controller::Memory => memory::apply(dir, &resources.memory, warnings),
        Controller::Pids => pids::apply(dir, resources.pids),
        Controller::Cpu => cpu::apply(dir, &resources.cpu, warnings),
        Controller::CpuSet => cpuset::apply(dir, &resources.cpuset),
        Controller::BlkIo => blkio::apply(dir, &resources.block_io),
        Controller::HugeTlb => hugetlb::apply(dir, &resources.huge_pages, "limit_in_bytes"),
        Controller::NetCls => network::apply_class(dir, &resources.network),
        Controller::NetPrio => network::apply_priorities(dir, &resources.network),
        Controller::Rdma => rdma::apply(dir, &resources.rdma),
        Controller::Devices | Controller::CpuAcct | Controller::Freezer | Controller::Systemd => Ok(()),
    }
}

fn check_unified(resources: &Resources) -> Result<()> {
    match resources.unified.keys().next() {
        None => Ok(()),
        Some(key) => Err(Error::invalid(format!(
            "linux.resources.unified: invalid configuration: {key} is of cgroup v2; this host has its controllers in cgroup v1"
        ))),
    }
}

fn missing(controller: Controller, field: &str) -> Error {
    let why = format!("{field}: the host has no {} cgroup controller", controller.name());
    Error::new(Kind::Unsupported, why)
}

/// What is equal for two names of one cgroup; `None` when there is none.
fn identity(hierarchy: &Path) -> Option<(u64, u64)> {
    let of = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    std::fs::metadata(hierarchy.join("cgroup.procs")).ok().map(of)
}

pub(super) use freezer::{freeze, thaw};
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
        let limits = Limits { resources: &Resources::default(), devices: &all };
        let wanted = Wanted { limits: &limits, unified: None, by_systemd: false };
        let made = make(dir.path(), path, &wanted, &mut Vec::new()).expect("make");
        let member = |controller: Controller| Member {
            controller,
            dir: dir.path().join(controller.name()).join(path),
            entered: false,
        };
        assert_eq!(made, [member(Controller::Memory), member(Controller::Pids)]);
        assert!(!dir.path().join("cpu/berth").exists());
    }

    #[test]
    fn a_limit_that_nobody_can_keep_is_an_error() {
        let dir = tempfile::tempdir().expect("tempdir");
        let limits = Limits { resources: &Resources::default(), devices: &Policy::container() };
        let wanted = Wanted { limits: &limits, unified: None, by_systemd: false };
        let e = make(dir.path(), Path::new("berth/x"), &wanted, &mut Vec::new()).expect_err("no controller");
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.to_string().starts_with("linux.resources.devices: "), "{e}");
    }

    /// A host whose `cpu` and `cpuacct` are one hierarchy.
    fn mounted_together() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(dir.path().join("cpu,cpuacct")).expect("mkdir");
        std::fs::write(dir.path().join("cpu,cpuacct/cgroup.procs"), "").expect("write");
        for name in ["cpu", "cpuacct"] {
            std::os::unix::fs::symlink("cpu,cpuacct", dir.path().join(name)).expect("symlink");
        }
        dir
    }

    #[test]
    fn one_hierarchy_is_entered_once() {
        let dir = mounted_together();
        let path = Path::new("x");
        std::fs::create_dir_all(dir.path().join("cpu/x")).expect("mkdir");
        std::fs::write(dir.path().join("cpu/x/cpu.shares"), "").expect("write");
        let cpu = super::super::Cpu { shares: Some(9), ..Default::default() };
        let resources = Resources { cpu, ..Resources::default() };
        let all = Policy { allow: true, exceptions: Vec::new() };
        let limits = Limits { resources: &resources, devices: &all };
        let wanted = Wanted { limits: &limits, unified: Some(Path::new("/")), by_systemd: false };
        let made = make(dir.path(), path, &wanted, &mut Vec::new()).expect("make");
        let entered: Vec<_> = made.iter().map(|member| (member.controller, member.entered)).collect();
        assert_eq!(entered, [(Controller::CpuAcct, false), (Controller::Cpu, true)]);
    }

    #[test]
    fn an_update_joins_what_it_needs() {
        let dir = mounted_together();
        std::fs::create_dir_all(dir.path().join("cpu/x")).expect("mkdir");
        std::fs::write(dir.path().join("cpu/x/cpu.shares"), "").expect("write");
        let cpu = super::super::Cpu { shares: Some(9), ..Default::default() };
        let resources = Resources { cpu, ..Resources::default() };
        let mut members = Vec::new();
        for expected in [vec![dir.path().join("cpu/x")], vec![]] {
            let joined = update(dir.path(), Path::new("x"), &mut members, &resources, None, &mut Vec::new());
            assert_eq!(joined.expect("update"), expected);
        }
        assert_eq!(fs::read(&dir.path().join("cpu/x"), "cpu.shares").expect("read"), "9");
    }

    #[test]
    fn keys_of_v2_are_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let unified = [("memory.high".to_owned(), "1".to_owned())].into();
        let resources = Resources { unified, ..Resources::default() };
        let e = update(dir.path(), Path::new("x"), &mut Vec::new(), &resources, None, &mut Vec::new());
        let e = e.expect_err("v1").to_string();
        assert!(e.starts_with("linux.resources.unified: invalid configuration: memory.high "), "{e}");
    }
}
