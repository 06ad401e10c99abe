// SPDX-License-Identifier: Apache-2.0
//! A container's configuration becomes an OCI runtime specification with
//! Docker's default posture. Pure: what the host knows comes in as [`Facts`].

pub mod capabilities;
mod devices;
pub mod limits;
mod mounts;
pub mod resources;
pub mod rlimits;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use oci_spec::runtime::{
    Capability, Linux, LinuxCapabilities, LinuxDevice, LinuxIdMapping, LinuxIdMappingBuilder, LinuxSeccomp,
    PosixRlimit, Process, Root, Spec, User,
};

use super::{
    container::{Document, HostConfig, NetworkMode},
    namespaces::{self, Joined},
    seccomp::{self, KernelVersion},
    security::{Filter, SecurityOpt, security_opt},
    users::IdMap,
};
use crate::error::{Error, Kind, Result};

/// Version of the specification that is written.
const OCI_VERSION: &str = "1.2.0";

/// Hidden: they tell of the host, or are ways to harm it. Docker's list.
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Not to be written: kernel parameters that no namespace confines.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the host knows and the specification needs.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Below every cgroup hierarchy, e.g. `/berth/default-0123…`.
    pub cgroup_path: String,
    /// Files of this container that are mounted over /etc/….
    pub etc: EtcFiles,
    /// For a privileged container: every capability that the kernel has.
    pub all_capabilities: Vec<Capability>,
    /// For a privileged container: the host's device nodes.
    pub devices: Vec<LinuxDevice>,
    /// For every container: CPUs' `thermal_throttle` directories to hide.
    pub thermal_throttle: Vec<String>,
    /// Limits of processes where the user gives none; the engine's own would
    /// leak otherwise.
    pub rlimits: Vec<PosixRlimit>,
    /// Rules of a seccomp profile may depend on it.
    pub kernel: KernelVersion,
    /// The host labels processes and files.
    pub selinux: bool,
    /// Devices that it is given.
    pub given: Given,
    /// Namespaces of other containers that it joins.
    pub joined: Joined,
}

/// Devices that a container is given, as they are on this host.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Given {
    /// Nodes.
    pub mapped: Vec<MappedDevice>,
    /// Weights of block I/O.
    pub weights: Vec<BlockDevice>,
    /// Bytes that may be read in a second.
    pub read_bps: Vec<BlockDevice>,
    /// Bytes that may be written in a second.
    pub write_bps: Vec<BlockDevice>,
    /// Reads in a second.
    pub read_iops: Vec<BlockDevice>,
    /// Writes in a second.
    pub write_iops: Vec<BlockDevice>,
}

/// A node that is made in the container.
#[derive(Debug, Clone, PartialEq)]
pub struct MappedDevice {
    /// Where and what.
    pub device: LinuxDevice,
    /// `r`, `w`, `m`.
    pub access: String,
}

/// A limit of one block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDevice {
    /// Its number.
    pub major: i64,
    /// Its number.
    pub minor: i64,
    /// Bytes or operations a second, or a weight.
    pub rate: u64,
}

/// Where a container's own copies of files in /etc are on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtcFiles {
    /// /etc/hostname
    pub hostname: PathBuf,
    /// /etc/hosts
    pub hosts: PathBuf,
    /// /etc/resolv.conf
    pub resolv_conf: PathBuf,
}

impl EtcFiles {
    /// The files in a container's directory.
    #[must_use]
    pub fn within(dir: &Path) -> Self {
        Self {
            hostname: dir.join("hostname"),
            hosts: dir.join("hosts"),
            resolv_conf: dir.join("resolv.conf"),
        }
    }
}

/// The specification of a container.
///
/// # Errors
/// `InvalidArgument` for a configuration that `validate` would refuse.
pub fn build(document: &Document, facts: &Facts) -> Result<Spec> {
    let (config, effective) = (&document.config, &document.effective);
    let security = Security::of(&config.host, facts)?;
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root(config.host.readonly_rootfs)))
        .set_hostname((!config.host.uts_host).then(|| effective.hostname.clone()))
        .set_domainname(some(&config.domainname))
        .set_mounts(Some(mounts::all(config, &facts.etc, &facts.joined)))
        .set_process(Some(process(document, facts, &security)?))
        .set_annotations(annotations(&config.host))
        .set_linux(Some(linux(document, facts, &security)?));
    Ok(spec)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn annotations(host: &HostConfig) -> Option<HashMap<String, String>> {
    let all = host.annotations.iter().map(|(key, value)| (key.clone(), value.clone()));
    (!host.annotations.is_empty()).then(|| all.collect())
}

fn root(readonly: bool) -> Root {
    let mut root = Root::default();
    // The shim mounts it from CreateTaskRequest.rootfs, inside the
    // container's mount namespace.
    root.set_path(PathBuf::from("rootfs")).set_readonly(Some(readonly));
    root
}

/// What the container's processes may do.
struct Security {
    capabilities: Vec<Capability>,
    no_new_privileges: bool,
    seccomp: Filter,
    /// What tells of the host is masked, and its parameters are read-only.
    masks: bool,
    apparmor: Option<String>,
}

impl Security {
    fn of(host: &HostConfig, facts: &Facts) -> Result<Self> {
        let capabilities = if host.privileged {
            facts.all_capabilities.clone()
        } else {
            capabilities::resolve(&host.cap_add, &host.cap_drop)?
        };
        let mut security = Self {
            capabilities,
            no_new_privileges: false,
            seccomp: if host.privileged { Filter::None } else { Filter::BuiltIn },
            masks: !host.privileged,
            apparmor: None,
        };
        for opt in &host.security_opt {
            match security_opt(opt)? {
                SecurityOpt::NoNewPrivileges(on) => security.no_new_privileges = on,
                SecurityOpt::Seccomp(filter) => security.seccomp = filter,
                SecurityOpt::SystemPathsUnconfined => security.masks = false,
                SecurityOpt::AppArmor(profile) => security.apparmor = Some(profile),
                SecurityOpt::NoLabel => {}
                SecurityOpt::Label(_) if !facts.selinux => {}
                SecurityOpt::Label(part) => {
                    let why = format!("--security-opt label={part}: SELinux labels can't be set yet");
                    return Err(Error::new(Kind::Unimplemented, why));
                }
            }
        }
        Ok(security)
    }

    fn filter(&self, kernel: KernelVersion) -> Option<LinuxSeccomp> {
        match &self.seccomp {
            Filter::None => None,
            Filter::BuiltIn => Some(seccomp::default_profile(&self.capabilities)),
            Filter::Profile(profile) => Some(profile.resolve(&self.capabilities, kernel)),
        }
    }
}

/// Root without a name is nobody's to look up: its groups are said here, the
/// primary one among them.
pub(super) fn user(name: &str) -> User {
    let mut user = User::default();
    if name.is_empty() {
        user.set_additional_gids(Some(vec![0]));
    }
    user
}

/// What the shim looks up in the container: the user, its group, and those of
/// `groups` that are names. A third part, which Docker overlooks, is ours.
#[must_use]
pub fn lookup(user: &str, groups: &[String]) -> String {
    let mut parts = user.split(':');
    let (user, group) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let names: Vec<&str> =
        groups.iter().map(String::as_str).filter(|group| group.parse::<u32>().is_err()).collect();
    match (user, group, &names[..]) {
        (user, "", []) => user.to_owned(),
        (user, group, []) => format!("{user}:{group}"),
        (user, group, names) => format!("{user}:{group}:{}", names.join(",")),
    }
}

/// The user's groups, and more: those that are numbers.
pub(super) fn with_groups(mut user: User, more: &[String]) -> User {
    if !more.is_empty() {
        let mut all = user.additional_gids().clone().unwrap_or_default();
        all.extend(more.iter().filter_map(|group| group.parse::<u32>().ok()));
        user.set_additional_gids(Some(all));
    }
    user
}

fn process(document: &Document, facts: &Facts, security: &Security) -> Result<Process> {
    let (config, effective) = (&document.config, &document.effective);
    let mut process = Process::default();
    process
        .set_terminal(Some(config.tty))
        .set_user(with_groups(user(&effective.user), &config.host.group_add))
        .set_args(Some(effective.args.clone()))
        .set_env(Some(effective.env.clone()))
        .set_cwd(PathBuf::from(&effective.working_dir))
        .set_capabilities(Some(sets(&security.capabilities)))
        .set_rlimits(Some(rlimits::merge(&facts.rlimits, rlimits::resolve(&config.host.ulimits)?)))
        .set_no_new_privileges(Some(security.no_new_privileges))
        .set_apparmor_profile(security.apparmor.clone())
        .set_oom_score_adj(Some(config.host.oom_score_adj));
    Ok(process)
}

/// Nothing inheritable or ambient: a process that isn't root has none.
pub(super) fn sets(capabilities: &[Capability]) -> LinuxCapabilities {
    let set: std::collections::HashSet<_> = capabilities.iter().copied().collect();
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(set.clone()))
        .set_permitted(Some(set.clone()))
        .set_effective(Some(set))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

fn linux(document: &Document, facts: &Facts, security: &Security) -> Result<Linux> {
    let host = &document.config.host;
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::of(
            &document.config,
            !document.effective.id_maps.is_empty(),
            &facts.joined,
        )))
        .set_uid_mappings(mappings(&document.effective.id_maps))
        .set_gid_mappings(mappings(&document.effective.id_maps))
        .set_cgroups_path(Some(PathBuf::from(&facts.cgroup_path)))
        .set_resources(Some(resources::of(host, &facts.given)?))
        .set_devices(Some(devices::nodes(facts, host.privileged)).filter(|all| !all.is_empty()))
        .set_sysctl(Some(sysctls(document)))
        .set_masked_paths(security.masks.then(|| masked(&facts.thermal_throttle)))
        .set_readonly_paths(security.masks.then(|| READONLY_PATHS.map(str::to_owned).to_vec()))
        // A bind mount of the user may ask for more (rslave, rshared).
        .set_rootfs_propagation(mounts::rootfs_propagation(&host.mounts))
        .set_seccomp(security.filter(facts.kernel));
    Ok(linux)
}

fn masked(thermal_throttle: &[String]) -> Vec<String> {
    MASKED_PATHS.iter().map(|p| (*p).to_owned()).chain(thermal_throttle.iter().cloned()).collect()
}

fn mappings(maps: &[IdMap]) -> Option<Vec<LinuxIdMapping>> {
    let mapping = |map: &IdMap| {
        let builder = LinuxIdMappingBuilder::default().container_id(map.container);
        builder.host_id(map.host).size(map.size).build().ok()
    };
    if maps.is_empty() { None } else { maps.iter().map(mapping).collect() }
}

/// The largest group that the kernel takes for ping_group_range; it wants the
/// last one to be a group of the namespace.
fn last_group(maps: &[IdMap]) -> u32 {
    let first = maps.iter().find(|map| map.container == 0);
    first.map_or(i32::MAX.unsigned_abs(), |map| (map.size - 1).min(i32::MAX.unsigned_abs()))
}

/// In a network of its own anybody may ping and listen below port 1024.
fn sysctls(document: &Document) -> HashMap<String, String> {
    let host = &document.config.host;
    let mut all = HashMap::new();
    if host.network == NetworkMode::None {
        all.insert(
            "net.ipv4.ping_group_range".to_owned(),
            format!("0 {}", last_group(&document.effective.id_maps)),
        );
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    all.extend(host.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())));
    all
}

#[cfg(test)]
mod tests;
