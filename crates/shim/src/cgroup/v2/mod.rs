// SPDX-License-Identifier: Apache-2.0
//! cgroup v2: one tree; a controller works in a directory when the one above
//! has it in `cgroup.subtree_control`.

mod cpu;
mod cpuset;
pub(super) mod devices;
mod io;
pub(super) mod memory;
mod pids;
mod unified;

use std::path::Path;

use nix::errno::Errno;

use super::{Limits, Resources, devices::Policy, fs, hugetlb, rdma};
use crate::runtime::{Error, Kind, Result};

/// Makes the directory of a container below `root`, with limits. False is a
/// container of a user who may make none; when nothing is asked for, it can be
/// without.
pub(super) fn make(
    root: &Path,
    path: &Path,
    limits: &Limits<'_>,
    warnings: &mut Vec<String>,
) -> Result<bool> {
    let dir = root.join(path);
    if let Err(e) = fs::make(&dir) {
        if !fs::is_forbidden(&dir) || !fs::is_unprivileged() {
            return Err(e);
        }
        let fields: Vec<_> = required(limits.resources).into_iter().map(|(_, field)| field).collect();
        if !fields.is_empty() {
            let why = format!("{}: {e}: the cgroup is not delegated to this user", fields.join(", "));
            return Err(Error::new(Kind::Unsupported, why));
        }
        warnings.push(format!("the container has no cgroup of its own: {e}"));
        return Ok(false);
    }
    enable(root, path, limits.resources, warnings)?;
    apply(&dir, limits.resources, warnings)?;
    devices::apply(&dir, limits.devices, warnings)?;
    Ok(true)
}

/// Changes the limits of a container that runs.
pub(super) fn update(
    root: &Path,
    path: &Path,
    resources: &Resources,
    devices: Option<&Policy>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let dir = root.join(path);
    enable(root, path, resources, warnings)?;
    apply(&dir, resources, warnings)?;
    devices.map_or(Ok(()), |policy| devices::update(&dir, policy, warnings))
}

fn apply(dir: &Path, resources: &Resources, warnings: &mut Vec<String>) -> Result<()> {
    if resources.network != super::Network::default() {
        let field = match resources.network.class_id {
            Some(_) => "classID",
            None => "priorities",
        };
        let why = format!("linux.resources.network.{field}: cgroup v2 does not have it");
        return Err(Error::new(Kind::Unsupported, why));
    }
    memory::apply(dir, &resources.memory, warnings)?;
    pids::apply(dir, resources.pids)?;
    cpu::apply(dir, &resources.cpu)?;
    cpuset::apply(dir, &resources.cpuset)?;
    io::apply(dir, &resources.block_io, warnings)?;
    hugetlb::apply(dir, &resources.huge_pages, "max")?;
    rdma::apply(dir, &resources.rdma)?;
    // Last: what is spelt out counts more than what was derived.
    unified::apply(dir, &resources.unified)
}

/// The controllers that a container can't be without, and the field that
/// wants each.
fn required(resources: &Resources) -> Vec<(&str, String)> {
    let fields = [
        ("memory", "memory", resources.memory.limit.is_some() || resources.memory.reservation.is_some()),
        ("memory", "memory.swap", resources.memory.swap.is_some()),
        ("pids", "pids", resources.pids.is_some()),
        ("cpu", "cpu", resources.cpu.is_set()),
        ("cpuset", "cpu", resources.cpuset.is_set()),
        ("io", "blockIO", resources.block_io.is_set()),
        ("hugetlb", "hugepageLimits", !resources.huge_pages.is_empty()),
        ("rdma", "rdma", !resources.rdma.is_empty()),
    ];
    let fields = fields.into_iter().filter(|(_, _, wanted)| *wanted);
    let keys = resources.unified.keys().filter_map(|key| Some((unified::controller(key)?, key)));
    fields
        .map(|(controller, field, _)| (controller, format!("linux.resources.{field}")))
        .chain(keys.map(|(controller, key)| (controller, format!("linux.resources.unified: {key}"))))
        .collect()
}

/// A container gets these where they are there: for their counters.
const USEFUL: [&str; 3] = ["memory", "pids", "io"];

/// Enables the controllers that the container uses in every directory above
/// its own, the root's included: a service manager may have left them off.
fn enable(root: &Path, path: &Path, resources: &Resources, warnings: &mut Vec<String>) -> Result<()> {
    let required = required(resources);
    let mut dir = root.to_owned();
    for name in path {
        let available = fs::read(&dir, "cgroup.controllers")?;
        let enabled = fs::read(&dir, "cgroup.subtree_control")?;
        let has = |list: &str, name: &str| list.split_whitespace().any(|known| known == name);
        if let Some((controller, field)) = required.iter().find(|(name, _)| !has(&available, name)) {
            let why = format!("{field}: there is no {controller} cgroup controller in {}", dir.display());
            return Err(Error::new(Kind::Unsupported, why));
        }
        let missing = |wanted: &[&str]| -> String {
            let mut words = Vec::new();
            for name in wanted.iter().filter(|name| has(&available, name) && !has(&enabled, name)) {
                let word = format!("+{name}");
                if !words.contains(&word) {
                    words.push(word);
                }
            }
            words.join(" ")
        };
        let required: Vec<_> = required.iter().map(|(name, _)| *name).collect();
        let all: Vec<_> = USEFUL.into_iter().chain(required.iter().copied()).collect();
        // All at once; then only what can't be done without.
        if write(&dir, &missing(&all)).is_err() {
            write(&dir, &missing(&required)).map_err(|e| refused(&dir, &e, resources))?;
            let list = missing(&USEFUL);
            warnings.push(format!("{} are not counted: {} may not be changed", list, dir.display()));
        }
        dir.push(name);
    }
    Ok(())
}

fn write(dir: &Path, words: &str) -> crate::kernel::Result<()> {
    if words.is_empty() { Ok(()) } else { fs::try_write(dir, "cgroup.subtree_control", words) }
}

/// Why controllers can't be enabled, and for which fields.
fn refused(dir: &Path, e: &crate::kernel::SysError, resources: &Resources) -> Error {
    let fields: Vec<_> = required(resources).into_iter().map(|(_, field)| field).collect();
    let why = match e.errno() {
        Errno::EBUSY => "; processes in it are in the way",
        Errno::EACCES | Errno::EPERM | Errno::EROFS => "; it is not delegated to this user",
        _ => "",
    };
    let kind = if e.errno() == Errno::EBUSY { Kind::Os } else { Kind::Unsupported };
    Error::new(kind, format!("{}: {e}{why} ({})", fields.join(", "), dir.display()))
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
    fn controllers_are_enabled_all_the_way_down_and_at_once() {
        let dir = fake("cpu pids memory io\n", "cpu memory\n");
        let resources = Resources { pids: Some(Limit::At(1)), ..Resources::default() };
        enable(dir.path(), Path::new("berth/x"), &resources, &mut Vec::new()).expect("enable");
        for sub in ["", "berth"] {
            let text = fs::read(&dir.path().join(sub), "cgroup.subtree_control").expect("read");
            assert_eq!(text, "+pids +io", "{sub:?}");
        }
    }

    #[test]
    fn a_controller_that_is_missing_matters_only_for_a_limit() {
        let dir = fake("cpu\n", "\n");
        let path = Path::new("berth/x");
        let mut warnings = Vec::new();
        enable(dir.path(), path, &Resources::default(), &mut warnings).expect("nothing is asked for");
        assert!(warnings.is_empty(), "{warnings:?}");
        for (resources, field) in [
            (Resources { pids: Some(Limit::At(1)), ..Resources::default() }, "linux.resources.pids: "),
            (
                Resources {
                    unified: [("hugetlb.2MB.max".to_owned(), "0".to_owned())].into(),
                    ..Resources::default()
                },
                "linux.resources.unified: hugetlb.2MB.max: ",
            ),
        ] {
            let e = enable(dir.path(), path, &resources, &mut Vec::new()).expect_err("no controller");
            assert_eq!(e.kind(), Kind::Unsupported);
            assert!(e.to_string().starts_with(field), "{e}");
        }
    }

    #[test]
    fn marks_on_traffic_are_refused() {
        let network = super::super::Network { class_id: Some(1), priorities: Vec::new() };
        let resources = Resources { network, ..Resources::default() };
        let e = apply(Path::new("/nowhere"), &resources, &mut Vec::new()).expect_err("v1 only");
        assert!(e.to_string().starts_with("linux.resources.network.classID: "), "{e}");
    }
}
