// SPDX-License-Identifier: Apache-2.0
//! Which namespaces a container gets new, joins, or shares with the host.

use std::path::PathBuf;

use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, LinuxNamespaceType};

use super::super::error::{Error, Result};

/// nix has no name for it.
const NEW_TIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);

/// A namespace that another process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) kind: CloneFlags,
    pub(crate) path: PathBuf,
}

/// The namespaces of a container; what is in neither list is the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// Made by clone3; never contains the cgroup namespace.
    pub(crate) new: CloneFlags,
    pub(crate) join: Vec<Join>,
    /// The user namespace that is joined: before all others, because it is to
    /// own those that are new.
    pub(crate) users: Option<PathBuf>,
    /// Made by init itself, once it is in its cgroups.
    pub(crate) new_cgroup: bool,
    /// Made by init itself: nobody may be in it before its clocks are set.
    pub(crate) new_time: bool,
}

impl Namespaces {
    /// Whether the container doesn't share this kind with the host.
    pub(crate) fn is_private(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind) || self.join.iter().any(|join| join.kind == kind)
    }

    /// Whether it gets users of its own.
    pub(crate) fn has_new_users(&self) -> bool {
        self.new.contains(CloneFlags::CLONE_NEWUSER)
    }

    /// Whether its users aren't the host's.
    pub(crate) fn has_private_users(&self) -> bool {
        self.has_new_users() || self.users.is_some()
    }

    /// Whether its mounts aren't the host's.
    pub(crate) fn has_private_mounts(&self) -> bool {
        self.is_private(CloneFlags::CLONE_NEWNS)
    }

    /// Whether it has a host name of its own.
    pub(crate) fn has_private_uts(&self) -> bool {
        self.is_private(CloneFlags::CLONE_NEWUTS)
    }
}

pub(super) fn plan(linux: &Linux) -> Result<Namespaces> {
    let mut plan = Namespaces {
        new: CloneFlags::empty(),
        join: Vec::new(),
        users: None,
        new_cgroup: false,
        new_time: false,
    };
    let mut seen = CloneFlags::empty();
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        let kind = flag(namespace.typ());
        if seen.contains(kind) {
            return Err(Error::invalid(format!("linux.namespaces: {} is listed twice", namespace.typ())));
        }
        seen |= kind;
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) if kind == CloneFlags::CLONE_NEWUSER => plan.users = Some(path.clone()),
            Some(path) => plan.join.push(Join { kind, path: path.clone() }),
            None if kind == CloneFlags::CLONE_NEWCGROUP => plan.new_cgroup = true,
            None if kind == NEW_TIME => plan.new_time = true,
            None => plan.new |= kind,
        }
    }
    // The mounts of a namespace that is joined are its own business from then
    // on: paths of the host are looked up before.
    plan.join.sort_by_key(|join| join.kind == CloneFlags::CLONE_NEWNS);
    Ok(plan)
}

pub(super) fn flag(kind: LinuxNamespaceType) -> CloneFlags {
    match kind {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Time => NEW_TIME,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxBuilder, LinuxNamespaceBuilder};

    use super::*;
    use crate::runtime::error::Kind;

    fn linux(namespaces: &[(LinuxNamespaceType, &str)]) -> Linux {
        let build = |(typ, path): &(LinuxNamespaceType, &str)| {
            let builder = LinuxNamespaceBuilder::default().typ(*typ);
            let builder = if path.is_empty() { builder } else { builder.path(*path) };
            builder.build().expect("namespace")
        };
        let list: Vec<_> = namespaces.iter().map(build).collect();
        LinuxBuilder::default().namespaces(list).build().expect("linux")
    }

    #[test]
    fn new_and_joined_ones_are_told_apart() {
        use LinuxNamespaceType::{Cgroup, Mount, Network, Pid};
        let plan = plan(&linux(&[(Mount, ""), (Pid, ""), (Cgroup, ""), (Network, "/n")])).expect("plan");
        assert_eq!(plan.new, CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID);
        assert!(plan.new_cgroup);
        assert!(plan.is_private(CloneFlags::CLONE_NEWNET));
        assert!(!plan.is_private(CloneFlags::CLONE_NEWIPC));
    }

    #[test]
    fn mounts_are_new_joined_or_the_hosts() {
        use LinuxNamespaceType::{Mount, Network, Pid};
        assert!(!plan(&linux(&[(Pid, "")])).expect("plan").has_private_mounts());
        let plan = plan(&linux(&[(Mount, "/m"), (Network, "/n")])).expect("plan");
        assert!(plan.has_private_mounts());
        assert_eq!(plan.join.last().map(|join| join.kind), Some(CloneFlags::CLONE_NEWNS));
    }

    #[test]
    fn no_namespace_is_listed_twice() {
        use LinuxNamespaceType::{Mount, User};
        let joined = plan(&linux(&[(Mount, ""), (User, "/u")])).expect("plan");
        assert!(joined.has_private_users() && !joined.has_new_users());
        assert_eq!(plan(&linux(&[(Mount, ""), (Mount, "")])).expect_err("twice").kind(), Kind::InvalidSpec);
    }
}
