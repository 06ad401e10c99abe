// SPDX-License-Identifier: Apache-2.0
//! From an OCI specification to a plan: what `init` and `cgroup` do, in plain
//! values. Pure: no system call, no path is looked at.
//!
//! What the specification asks for and this version can't do is an error that
//! names the field; nothing is left out silently.

mod devices;
mod execution;
mod hooks;
mod mounts;
mod namespaces;
mod net_devices;
mod process;
mod resources;
mod rootfs;
mod sysctl;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Spec};

pub use self::hooks::{Hook, Hooks, Moment, State};
pub(crate) use self::{
    devices::Node,
    execution::Execution,
    mounts::{Dev, Mount, Propagation, Source},
    namespaces::Namespaces,
    net_devices::NetDevice,
    process::{Capabilities, Identity, Process, Rlimit, names as capability_names},
    resources::plan as resources,
    rootfs::Rootfs,
};
use super::error::{Error, Result};
use crate::{
    cgroup::{Resources, devices::Policy},
    seccomp,
};

/// Everything that is done for a container, in values.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Namespaces,
    pub(crate) rootfs: Rootfs,
    /// Where hooks look for it: the directory that the specification names.
    pub(crate) root_path: PathBuf,
    /// The root is made read-only when all is in place.
    pub(crate) read_only_root: bool,
    /// How mount events of the host reach the container's mounts.
    pub(crate) propagation: Propagation,
    pub(crate) dev: Dev,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) masked: Vec<PathBuf>,
    pub(crate) read_only: Vec<PathBuf>,
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

/// Plans a container.
///
/// # Errors
/// `InvalidSpec`, and `Unsupported` for what later versions do.
pub(crate) fn plan(
    spec: &Spec,
    bundle: &Path,
    rootfs: &[berth::api::types::Mount],
    user: &str,
) -> Result<Plan> {
    let Some(linux) = spec.linux() else { return Err(Error::invalid("linux is missing")) };
    refuse_unsupported(linux)?;
    let namespaces = namespaces::plan(linux)?;
    let (dev, mounts) = mounts::plan(spec.mounts().as_deref().unwrap_or_default())?;
    let nodes = linux.devices().as_deref().unwrap_or_default();
    let dev = devices::add(dev, nodes)?;
    let rules = linux.resources().as_ref().and_then(|r| r.devices().as_deref()).unwrap_or_default();
    if spec.hostname().as_ref().is_some_and(|name| !name.is_empty()) && !namespaces.has_private_uts() {
        return Err(Error::invalid("hostname is set, but the container has the host's uts namespace"));
    }
    Ok(Plan {
        rootfs: rootfs::plan(spec, bundle, rootfs)?,
        root_path: rootfs::path(spec, bundle),
        read_only_root: spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false),
        propagation: rootfs::propagation(linux)?,
        dev,
        mounts,
        masked: paths(linux.masked_paths().as_deref(), "linux.maskedPaths")?,
        read_only: paths(linux.readonly_paths().as_deref(), "linux.readonlyPaths")?,
        hostname: spec.hostname().clone().filter(|name| !name.is_empty()),
        domainname: spec.domainname().clone().filter(|name| !name.is_empty()),
        sysctls: sysctl::plan(linux.sysctl().as_ref(), &namespaces)?,
        net_devices: net_devices::plan(linux.net_devices().as_ref(), &namespaces)?,
        process: process::plan(spec, user)?,
        seccomp: seccomp_program(linux)?,
        resources: resources::plan(linux.resources().as_ref())?,
        devices: Policy::from_spec(rules, nodes)?,
        namespaces,
    })
}

fn seccomp_program(linux: &Linux) -> Result<Option<seccomp::Program>> {
    let Some(profile) = linux.seccomp() else { return Ok(None) };
    seccomp::compile(profile).map(Some).map_err(|e| Error::invalid(format!("linux.seccomp: {e}")))
}

/// What is asked for and comes with a later version.
fn refuse_unsupported(linux: &Linux) -> Result<()> {
    let unsupported = [
        ("linux.uidMappings", linux.uid_mappings().as_ref().is_some_and(|m| !m.is_empty())),
        ("linux.gidMappings", linux.gid_mappings().as_ref().is_some_and(|m| !m.is_empty())),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|t| !t.is_empty())),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|l| !l.is_empty())),
    ];
    if let Some((field, _)) = unsupported.into_iter().find(|(_, asked)| *asked) {
        return Err(Error::unsupported(field));
    }
    Ok(())
}

/// The paths of a list, each absolute.
fn paths(list: Option<&[String]>, field: &str) -> Result<Vec<PathBuf>> {
    let check = |path: &String| {
        if path.starts_with('/') {
            Ok(mounts::normalize(Path::new(path)))
        } else {
            Err(Error::invalid(format!("{field}: {path:?} is not absolute")))
        }
    };
    list.unwrap_or_default().iter().map(check).collect()
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxSeccompAction, LinuxSeccompBuilder};

    use super::*;
    use crate::runtime::error::Kind;

    fn plan_of(spec: &Spec) -> Result<Plan> {
        plan(spec, Path::new("/bundle"), &[], "")
    }

    #[test]
    fn the_default_specification_has_a_plan() {
        let plan = plan_of(&Spec::default()).expect("plan");
        assert!(plan.masked.contains(&PathBuf::from("/proc/kcore")));
        assert!(plan.namespaces.has_private_uts());
        assert_eq!(plan.rootfs, Rootfs::Bind { source: PathBuf::from("/bundle/rootfs"), recursive: true });
    }

    #[test]
    fn what_is_not_there_yet_is_refused_by_name() {
        let mut spec = Spec::default();
        let mut linux = spec.linux().clone().expect("linux");
        linux.set_mount_label(Some("label".to_owned()));
        spec.set_linux(Some(linux));
        let e = plan_of(&spec).expect_err("mount label");
        assert_eq!(e.kind(), Kind::Unsupported);
        assert_eq!(e.to_string(), "linux.mountLabel is not supported yet");
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
        spec.set_hostname(Some("x".to_owned()));
        let mut linux = spec.linux().clone().expect("linux");
        let rest = linux.namespaces().clone().expect("namespaces").into_iter();
        linux.set_namespaces(Some(
            rest.filter(|n| n.typ() != oci_spec::runtime::LinuxNamespaceType::Uts).collect(),
        ));
        spec.set_linux(Some(linux));
        assert_eq!(plan_of(&spec).expect_err("host's name").kind(), Kind::InvalidSpec);
    }
}
