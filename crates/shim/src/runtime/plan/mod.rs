// SPDX-License-Identifier: Apache-2.0
//! From an OCI specification to a plan: what `init` and `cgroup` do, in plain
//! values. Pure: no system call, no path is looked at.
//!
//! What the specification asks for and this version can't do is an error that
//! names the field; nothing is left out silently.

mod devices;
mod execution;
#[cfg(test)]
mod fields;
mod hooks;
pub(crate) mod joining;
mod label;
mod mounts;
mod namespaces;
mod net_devices;
mod process;
mod resources;
mod rootfs;
mod sysctl;
mod users;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use berth_seccomp as seccomp;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Linux, Spec};

pub use self::hooks::{Hook, Hooks, Moment, State};
pub(crate) use self::{
    devices::Node,
    execution::Execution,
    joining::Joining,
    mounts::{Dev, Mount, MountIds, Propagation, Source},
    namespaces::Namespaces,
    net_devices::NetDevice,
    process::{Capabilities, Identity, Process, Rlimit, names as capability_names},
    resources::plan as resources,
    rootfs::{Rootfs, Writable},
    users::{IdMaps, Range},
};
use super::error::{Error, Result};
use crate::cgroup::{Resources, devices::Policy};

/// `__NEW_UTS_LEN` of linux/utsname.h.
const MAX_HOST_NAME: usize = 64;

/// Everything that is done for a container, in values.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    /// Of the user namespace, new or joined.
    pub(crate) id_maps: Option<IdMaps>,
    /// Lines for the clocks of a new time namespace.
    pub(crate) time_offsets: Vec<String>,
    pub(crate) rootfs: Rootfs,
    /// Where hooks look for it: the directory that the specification names.
    pub(crate) root_path: PathBuf,
    /// The root is made read-only when all is in place.
    pub(crate) read_only_root: bool,
    /// How mount events of the host reach the container's mounts.
    pub(crate) propagation: Propagation,
    pub(crate) dev: Dev,
    /// Device files that are not below /dev.
    pub(crate) nodes_elsewhere: Vec<Node>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
    /// SELinux's, of all new file systems.
    pub(crate) mount_label: Option<String>,
    pub(crate) hostname: Option<String>,
    pub(crate) domainname: Option<String>,
    /// Paths below /proc/sys, and values.
    pub(crate) sysctls: Vec<(PathBuf, String)>,
    /// Of the host, for the container.
    pub(crate) net_devices: Vec<NetDevice>,
    pub(crate) process: Process,
    /// Which system calls the container may make.
    pub(crate) seccomp: Option<seccomp::Program>,
    pub(crate) resources: Resources,
    pub(crate) devices: Policy,
}

impl Plan {
    /// Adds the label to the options of all new file systems.
    pub(crate) fn label_mounts(&mut self) {
        if let Some(label) = &self.mount_label {
            label::apply(label, &mut self.dev, &mut self.mounts);
        }
    }

    /// What is changed of namespaces, and the field that wants it: they must
    /// not be the host's.
    pub(crate) fn changes(&self) -> Vec<(CloneFlags, String)> {
        let names = [(&self.hostname, "hostname"), (&self.domainname, "domainname")];
        let names = names.into_iter().filter(|(name, _)| name.is_some());
        let devices = self
            .net_devices
            .iter()
            .map(|d| (CloneFlags::CLONE_NEWNET, format!("linux.netDevices: {}", d.name)));
        let sysctls = self
            .sysctls
            .iter()
            .map(|(path, _)| (sysctl::namespace(path), format!("linux.sysctl: {}", path.display())));
        let sysctls = sysctls.filter_map(|(kind, field)| Some((kind?, field)));
        names
            .map(|(_, field)| (CloneFlags::CLONE_NEWUTS, field.to_owned()))
            .chain(devices)
            .chain(sysctls)
            .collect()
    }
}

/// Plans a container. `filter` is its seccomp profile, compiled; empty when
/// nobody has done that.
///
/// # Errors
/// `InvalidSpec`, and `Unsupported` for what later versions do.
pub(crate) fn plan(
    spec: &Spec,
    bundle: &Path,
    rootfs: &[berth::api::types::Mount],
    user: &str,
    filter: &[u8],
) -> Result<Plan> {
    let Some(linux) = spec.linux() else { return Err(Error::invalid("linux is missing")) };
    let namespaces = namespaces::plan(linux)?;
    let (dev, mounts) = mounts::plan(spec.mounts().as_deref().unwrap_or_default(), bundle)?;
    let nodes = linux.devices().as_deref().unwrap_or_default();
    let (dev, nodes_elsewhere) = devices::add(dev, nodes)?;
    let nobody = mounts.iter().find(|mount| matches!(&mount.ids, Some(MountIds { maps: None, .. })));
    if let Some(mount) = nobody.filter(|_| !namespaces.has_private_users()) {
        let what = mount.destination.display();
        return Err(Error::invalid(format!("mounts: {what}: idmap needs mappings, or a user namespace")));
    }
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_deref()).unwrap_or_default();
    Ok(Plan {
        id_maps: users::maps(linux, &namespaces)?,
        time_offsets: users::time_offsets(linux, &namespaces)?,
        rootfs: rootfs::plan(spec, bundle, rootfs)?,
        root_path: rootfs::path(spec, bundle),
        read_only_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
        propagation: rootfs::propagation(linux)?,
        dev,
        nodes_elsewhere,
        mounts,
        masked: paths(linux.masked_paths().as_deref()),
        read_only: paths(linux.readonly_paths().as_deref()),
        mount_label: label::plan(linux.mount_label().as_deref())?,
        hostname: host_name(spec.hostname().as_deref(), "hostname", &namespaces)?,
        domainname: host_name(spec.domainname().as_deref(), "domainname", &namespaces)?,
        sysctls: sysctl::plan(linux.sysctl().as_ref(), &namespaces)?,
        net_devices: net_devices::plan(linux.net_devices().as_ref(), &namespaces)?,
        process: process::plan(spec, user)?,
        seccomp: seccomp_program(linux, filter)?,
        resources: resources::plan(linux.resources().as_ref())?,
        devices: Policy::from_spec(rules)?,
        namespaces,
    })
}

/// sethostname(2) and setdomainname(2) take 64 bytes.
fn host_name(name: Option<&str>, field: &str, namespaces: &Namespaces) -> Result<Option<String>> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    if !namespaces.has_private_uts() {
        return Err(Error::invalid(format!(
            "{field} is set, but the container has the host's uts namespace"
        )));
    }
    if name.len() > MAX_HOST_NAME || name.contains('\0') {
        return Err(Error::invalid(format!("{field}: {name:?} is no name of at most {MAX_HOST_NAME} bytes")));
    }
    Ok(Some(name.to_owned()))
}

/// The filter, unless somebody has `compiled` it already.
fn seccomp_program(linux: &Linux, compiled: &[u8]) -> Result<Option<seccomp::Program>> {
    let Some(profile) = linux.seccomp() else { return Ok(None) };
    let program = match compiled {
        [] => seccomp::compile(profile),
        bytes => seccomp::Program::compiled(profile, bytes),
    };
    program.map(Some).map_err(|e| Error::invalid(format!("linux.seccomp: {e}")))
}

/// The paths of a list. The specification wants them absolute; what isn't is
/// taken from the container's root, as runc does. Twice is no more than once.
fn paths(list: Option<&[String]>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let paths = list.unwrap_or_default().iter().map(|path| mounts::normalize(&Path::new("/").join(path)));
    paths.filter(|path| seen.insert(path.clone())).collect()
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompBuilder};

    use super::*;
    use crate::runtime::error::Kind;

    fn plan_of(spec: &Spec) -> Result<Plan> {
        plan(spec, Path::new("/bundle"), &[], "", &[])
    }

    #[test]
    fn the_default_specification_has_a_plan() {
        let plan = plan_of(&Spec::default()).expect("plan");
        assert!(plan.masked.contains(&PathBuf::from("/proc/kcore")));
        assert!(plan.namespaces.has_private_uts());
        assert_eq!(plan.rootfs, Rootfs::Bind { source: PathBuf::from("/bundle/rootfs"), recursive: true });
    }

    #[test]
    fn what_changes_a_namespace_says_so() {
        let mut spec = Spec::default();
        spec.set_hostname(Some("h".to_owned())).set_domainname(None);
        let mut linux = spec.linux().clone().expect("linux");
        let sysctls = [("net.ipv4.ip_forward", "1"), ("kernel.msgmax", "1")];
        linux.set_sysctl(Some(sysctls.map(|(k, v)| (k.to_owned(), v.to_owned())).into()));
        spec.set_linux(Some(linux));
        let changes = plan_of(&spec).expect("plan").changes();
        assert_eq!(
            changes,
            [
                (CloneFlags::CLONE_NEWUTS, "hostname".to_owned()),
                (CloneFlags::CLONE_NEWIPC, "linux.sysctl: kernel/msgmax".to_owned()),
                (CloneFlags::CLONE_NEWNET, "linux.sysctl: net/ipv4/ip_forward".to_owned()),
            ]
        );
    }

    #[test]
    fn a_seccomp_profile_is_compiled_or_refused() {
        let profile =
            |action| LinuxSeccompBuilder::default().default_action(action).build().expect("seccomp");
        let mut spec = Spec::default();
        let mut linux = spec.linux().clone().expect("linux");
        linux.set_seccomp(Some(profile(LinuxSeccompAction::ScmpActAllow)));
        spec.set_linux(Some(linux.clone()));
        assert!(plan_of(&spec).expect("plan").seccomp.is_some());
        linux.set_seccomp(Some(profile(LinuxSeccompAction::ScmpActNotify)));
        spec.set_linux(Some(linux));
        assert_eq!(plan_of(&spec).expect_err("notify").kind(), Kind::InvalidSpec);
    }

    #[test]
    fn a_host_name_needs_a_namespace_for_it() {
        let mut spec = Spec::default();
        spec.set_hostname(Some("x".repeat(65)));
        assert!(plan_of(&spec).expect_err("long").to_string().ends_with("is no name of at most 64 bytes"));
        spec.set_hostname(None);
        spec.set_domainname(Some("x".to_owned()));
        plan_of(&spec).expect("plan");
        let mut linux = spec.linux().clone().expect("linux");
        let rest = linux.namespaces().clone().expect("namespaces").into_iter();
        linux.set_namespaces(Some(
            rest.filter(|n| n.typ() != oci_spec::runtime::LinuxNamespaceType::Uts).collect(),
        ));
        spec.set_linux(Some(linux));
        let e = plan_of(&spec).expect_err("host's name");
        assert_eq!(e.to_string(), "domainname is set, but the container has the host's uts namespace");
    }
}
