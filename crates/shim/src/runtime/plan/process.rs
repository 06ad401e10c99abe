// SPDX-License-Identifier: Apache-2.0
//! The container's first process: what it runs, as whom, with which rights.

use std::{collections::HashSet, ffi::CString, path::PathBuf};

use nix::sys::resource::Resource;
use oci_spec::runtime::{Capability, PosixRlimitType, Spec};

use super::{
    super::error::{Error, Result},
    execution::{self, Execution},
};
use crate::kernel::process::CapSets;

/// One more than the highest id: 0xFFFF_FFFF means "unchanged" to the kernel.
pub(crate) const MAX_ID: u32 = u32::MAX - 1;

/// Names by number (linux/capability.h).
const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The first process.
#[derive(Debug)]
pub(crate) struct Process {
    /// None when there is nothing to start.
    pub(crate) args: Vec<CString>,
    pub(crate) env: Vec<CString>,
    /// Absolute.
    pub(crate) cwd: PathBuf,
    pub(crate) terminal: bool,
    /// Lines and columns of the terminal at its beginning.
    pub(crate) console_size: Option<(u16, u16)>,
    pub(crate) identity: Identity,
    /// The runtime's own when it is not given.
    pub(crate) umask: Option<u32>,
    pub(crate) capabilities: Capabilities,
    pub(crate) rlimits: Vec<Rlimit>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) execution: Execution,
    pub(crate) apparmor: Option<String>,
    pub(crate) selinux: Option<String>,
}

/// Who runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// Numbers, as the specification has them.
    Numbers { uid: u32, gid: u32, additional: Vec<u32> },
    /// `user[:group]`, to be looked up in the container.
    Lookup { user: String, additional: Vec<u32> },
}

/// The five sets, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) bounding: u64,
    pub(crate) sets: CapSets,
    pub(crate) ambient: u64,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rlimit {
    pub(crate) resource: Resource,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

pub(super) fn plan(spec: &Spec, user: &str) -> Result<Process> {
    // A container without a process can be created, only not started.
    let nothing = oci_spec::runtime::Process::default();
    let process = spec.process().as_ref().unwrap_or(&nothing);
    // Of no use to the first process, but not to be found wrong by the first exec.
    execution::affinity(process.exec_cpu_affinity().as_ref())?;
    let args = spec.process().as_ref().and_then(|process| process.args().as_deref()).unwrap_or_default();
    let args = c_strings(args, "process.args")?;
    if spec.process().is_some() && args.first().is_none_or(|program| program.is_empty()) {
        return Err(Error::invalid("process.args: no command specified"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::invalid(format!("process.cwd: {:?} is not absolute", process.cwd())));
    }
    let filled = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
    Ok(Process {
        args,
        env: last_of_each(c_strings(process.env().as_deref().unwrap_or_default(), "process.env")?),
        cwd: process.cwd().clone(),
        terminal: process.terminal().unwrap_or(false),
        console_size: console_size(process)?,
        identity: identity(process.user(), user)?,
        umask: process.user().umask().map(|mask| mask & 0o777),
        capabilities: process.capabilities().as_ref().map(capabilities).transpose()?.unwrap_or_default(),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(process)?,
        execution: execution::plan(spec, process)?,
        apparmor: apparmor(process)?,
        selinux: filled(process.selinux_label()),
    })
}

/// The kernel takes no notice of white space around a name: what is another
/// name here would be "unconfined" there.
fn apparmor(process: &oci_spec::runtime::Process) -> Result<Option<String>> {
    let name = process.apparmor_profile().as_deref().unwrap_or_default();
    if name.trim() != name {
        return Err(Error::invalid(format!("process.apparmorProfile: white space around {name:?}")));
    }
    Ok((!matches!(name, "" | "unconfined")).then(|| name.to_owned()))
}

/// Ignored without a terminal, as the specification wants it.
fn console_size(process: &oci_spec::runtime::Process) -> Result<Option<(u16, u16)>> {
    let Some(size) = process.console_size().filter(|_| process.terminal() == Some(true)) else {
        return Ok(None);
    };
    match (u16::try_from(size.height()), u16::try_from(size.width())) {
        (Ok(rows), Ok(columns)) => Ok(Some((rows, columns))),
        _ => Err(Error::invalid(format!(
            "process.consoleSize: {}x{} is too large",
            size.width(),
            size.height()
        ))),
    }
}

/// proc(5)
fn oom_score_adj(process: &oci_spec::runtime::Process) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(Error::invalid(format!("process.oomScoreAdj: {score} is not between -1000 and 1000")))
        }
        score => Ok(score),
    }
}

fn c_strings(list: &[String], field: &str) -> Result<Vec<CString>> {
    let convert = |text: &String| {
        CString::new(text.as_str()).map_err(|_| Error::invalid(format!("{field}: {text:?} contains NUL")))
    };
    list.iter().map(convert).collect()
}

/// Of variables that are set twice the last counts, for every program alike.
fn last_of_each(env: Vec<CString>) -> Vec<CString> {
    let name = |entry: &CString| entry.to_bytes().split(|byte| *byte == b'=').next().map(<[u8]>::to_vec);
    let mut seen = HashSet::new();
    let mut kept: Vec<_> = env.into_iter().rev().filter(|entry| seen.insert(name(entry))).collect();
    kept.reverse();
    kept
}

fn identity(user: &oci_spec::runtime::User, lookup: &str) -> Result<Identity> {
    let additional = user.additional_gids().clone().unwrap_or_default();
    if [user.uid(), user.gid()].iter().chain(&additional).any(|id| *id > MAX_ID) {
        return Err(Error::invalid("process.user: 4294967295 is no id"));
    }
    if lookup.is_empty() {
        return Ok(Identity::Numbers { uid: user.uid(), gid: user.gid(), additional });
    }
    Ok(Identity::Lookup { user: lookup.to_owned(), additional })
}

fn capabilities(capabilities: &oci_spec::runtime::LinuxCapabilities) -> Result<Capabilities> {
    let bits = |set: &Option<HashSet<Capability>>| {
        set.iter().flatten().filter_map(|c| number(*c)).fold(0, |bits, n| bits | 1_u64 << n)
    };
    let bounding = bits(capabilities.bounding());
    let inheritable = bits(capabilities.inheritable());
    // Not given at all it is empty, and the kernel would refuse the other. An
    // empty one that is given leaves what can't be granted out, and says so.
    if capabilities.bounding().is_none() && inheritable != 0 {
        let names = names(inheritable).join(" ");
        return Err(Error::invalid(format!(
            "process.capabilities.inheritable: {names}: operation not permitted without a bounding set"
        )));
    }
    Ok(Capabilities {
        bounding,
        sets: CapSets {
            effective: bits(capabilities.effective()),
            permitted: bits(capabilities.permitted()),
            inheritable,
        },
        ambient: bits(capabilities.ambient()),
    })
}

/// Names of capabilities, as capabilities(7) has them.
pub(crate) fn names(capabilities: u64) -> Vec<String> {
    let name = |bit: usize| CAPABILITIES.get(bit).map_or(bit.to_string(), |name| format!("CAP_{name}"));
    (0..64).filter(|bit| capabilities & 1 << bit != 0).map(name).collect()
}

fn number(capability: Capability) -> Option<usize> {
    let name = capability.to_string();
    CAPABILITIES.iter().position(|known| *known == name)
}

fn rlimits(limits: &[oci_spec::runtime::PosixRlimit]) -> Result<Vec<Rlimit>> {
    let mut planned: Vec<Rlimit> = Vec::new();
    for limit in limits {
        let resource = resource(limit.typ());
        if limit.soft() > limit.hard() {
            return Err(Error::invalid(format!("process.rlimits: {}: soft is above hard", limit.typ())));
        }
        if planned.iter().any(|p| p.resource == resource) {
            return Err(Error::invalid(format!("process.rlimits: {} is listed twice", limit.typ())));
        }
        planned.push(Rlimit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(planned)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => Resource::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => Resource::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => Resource::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => Resource::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => Resource::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => Resource::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => Resource::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => Resource::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => Resource::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => Resource::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => Resource::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => Resource::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => Resource::RLIMIT_RTTIME,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxCapabilitiesBuilder, PosixRlimitBuilder, UserBuilder};

    use super::*;

    #[test]
    fn the_last_of_two_variables_is_kept() {
        let env = ["A=1", "B=2", "A=3", "A"].map(|text| CString::new(text).expect("text"));
        let kept = last_of_each(env[..3].to_vec());
        assert_eq!(kept, [env[1].clone(), env[2].clone()]);
        assert_eq!(last_of_each(env.to_vec()), [env[1].clone(), env[3].clone()]);
    }

    #[test]
    fn every_capability_has_its_number() {
        for (expected, name) in CAPABILITIES.iter().enumerate() {
            let parsed: Capability = name.parse().expect(name);
            assert_eq!(number(parsed), Some(expected), "{name}");
        }
    }

    #[test]
    fn the_sets_stay_apart() {
        let set = |caps: &[Capability]| caps.iter().copied().collect::<HashSet<_>>();
        let spec = LinuxCapabilitiesBuilder::default()
            .bounding(set(&[Capability::Chown, Capability::Kill]))
            .effective(set(&[Capability::Chown]))
            .permitted(set(&[Capability::Kill]))
            .inheritable(set(&[]))
            .ambient(set(&[]))
            .build()
            .expect("capabilities");
        let planned = capabilities(&spec).expect("plan");
        assert_eq!(planned.bounding, 0b10_0001);
        assert_eq!(planned.sets, CapSets { effective: 1, permitted: 0b10_0000, inheritable: 0 });
        assert_eq!(planned.ambient, 0);
    }

    #[test]
    fn the_highest_number_is_no_id() {
        let user = |uid| UserBuilder::default().uid(uid).gid(0_u32).build().expect("user");
        assert!(identity(&user(u32::MAX), "").is_err());
        let expected = Identity::Numbers { uid: MAX_ID, gid: 0, additional: Vec::new() };
        assert_eq!(identity(&user(MAX_ID), "").expect("id"), expected);
    }

    #[test]
    fn a_soft_limit_above_the_hard_one_is_refused() {
        let limit = |soft: u64, hard: u64| {
            let builder = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
            builder.soft(soft).hard(hard).build().expect("limit")
        };
        assert!(rlimits(&[limit(2, 1)]).is_err());
        assert!(rlimits(&[limit(1, 1), limit(1, 1)]).is_err());
        assert_eq!(rlimits(&[limit(1, 2)]).expect("limits")[0].hard, 2);
    }
}
