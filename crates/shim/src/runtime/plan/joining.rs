// SPDX-License-Identifier: Apache-2.0
//! A process that joins a container which runs: what is its own, and what it
//! takes over from the container.

use berth_seccomp as seccomp;
use nix::sched::CloneFlags;
use oci_spec::runtime::{Process as OciProcess, Spec};

use super::{
    super::error::{Error, Result},
    execution::{self, Affinity},
    namespaces,
    process::{self, Process},
    seccomp_program,
};

/// Everything that is done for such a process, in values.
#[derive(Debug)]
pub(crate) struct Joining {
    /// Namespaces of the container that aren't the host's.
    pub(crate) namespaces: CloneFlags,
    pub(crate) process: Process,
    pub(crate) seccomp: Option<seccomp::Program>,
    pub(crate) affinity: Affinity,
}

/// Plans `process` in the container that `spec` describes, for `user`
/// (`user[:group]`, looked up in the container) or for the ids of `process`.
pub(crate) fn plan(spec: &Spec, process: OciProcess, user: &str) -> Result<Joining> {
    let Some(linux) = spec.linux() else { return Err(Error::invalid("linux is missing")) };
    let listed = linux.namespaces().as_deref().unwrap_or_default().iter();
    let flags = listed.fold(CloneFlags::empty(), |all, n| all | namespaces::flag(n.typ()));
    let mut spec = spec.clone();
    let process = complete(process, spec.process().as_ref());
    let affinity = execution::affinity(process.exec_cpu_affinity().as_ref())?;
    spec.set_process(Some(process));
    Ok(Joining {
        namespaces: flags,
        process: process::plan(&spec, user)?,
        seccomp: match spec.linux() {
            Some(linux) => seccomp_program(linux, &[])?,
            None => None,
        },
        affinity,
    })
}

/// What the process doesn't say is as for the container's first one: it can
/// have other rights, but not by forgetting to say which.
fn complete(mut process: OciProcess, first: Option<&OciProcess>) -> OciProcess {
    let Some(first) = first else { return process };
    if process.capabilities().is_none() {
        process.set_capabilities(first.capabilities().clone());
    }
    if process.rlimits().is_none() {
        process.set_rlimits(first.rlimits().clone());
    }
    if process.apparmor_profile().is_none() {
        process.set_apparmor_profile(first.apparmor_profile().clone());
    }
    if process.selinux_label().is_none() {
        process.set_selinux_label(first.selinux_label().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(first.oom_score_adj());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(first.exec_cpu_affinity().clone());
    }
    if first.no_new_privileges() == Some(true) {
        process.set_no_new_privileges(Some(true));
    }
    process
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxNamespaceType;

    use super::*;

    #[test]
    fn what_is_not_said_is_the_containers() {
        let mut spec = Spec::default();
        let mut first = spec.process().clone().expect("process");
        first.set_no_new_privileges(Some(true)).set_oom_score_adj(Some(7));
        spec.set_process(Some(first.clone()));
        let mut process = OciProcess::default();
        process.set_capabilities(None).set_rlimits(None).set_no_new_privileges(None);
        process.set_args(Some(vec!["true".to_owned()]));
        let joining = plan(&spec, process, "").expect("plan");
        assert!(joining.process.no_new_privileges);
        assert_eq!(joining.process.oom_score_adj, Some(7));
        assert_eq!(joining.process.rlimits.len(), first.rlimits().as_ref().map_or(0, Vec::len));
        assert_ne!(joining.process.capabilities.bounding, 0);
    }

    #[test]
    fn every_namespace_of_the_container_is_joined() {
        let spec = Spec::default();
        let joining = plan(&spec, OciProcess::default(), "").expect("plan");
        let listed = spec.linux().as_ref().and_then(|l| l.namespaces().as_ref()).expect("namespaces");
        assert!(listed.iter().any(|n| n.typ() == LinuxNamespaceType::Network));
        assert!(joining.namespaces.contains(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS));
    }
}
