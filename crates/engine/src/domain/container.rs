// SPDX-License-Identifier: Apache-2.0
//! What a container was asked to be ([`Config`]), what that came to together
//! with its image ([`Effective`]), and the part that lists show ([`Summary`]).
//!
//! All three are stored as JSON with the container: an image that is removed
//! or a newer engine doesn't change a container that exists.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    devices::Devices,
    health::HealthConfig,
    log::LogConfig,
    namespaces::{IpcMode, PidMode},
    restart::RestartPolicy,
    users::IdMap,
};

/// What to run and how; unset fields take the image's value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Reference or id of a local image, as the user wrote it.
    pub image: String,
    /// Replaces the image's Cmd when not empty.
    pub command: Vec<String>,
    /// Replaces the image's Entrypoint when present.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` sets, `NAME` removes.
    pub env: Vec<String>,
    /// Absolute; empty takes the image's.
    pub working_dir: String,
    /// `user[:group]`; empty takes the image's.
    pub user: String,
    /// Empty: the short id, or the host's name in its network.
    pub hostname: String,
    /// NIS domain name.
    pub domainname: String,
    /// The user's own labels.
    pub labels: BTreeMap<String, String>,
    /// Allocate a terminal.
    pub tty: bool,
    /// Keep stdin open.
    pub open_stdin: bool,
    /// Close stdin with the first client that could write to it.
    pub stdin_once: bool,
    /// Name or number; empty takes the image's, then SIGTERM.
    pub stop_signal: String,
    /// Seconds; -1 waits for ever; unset is the engine's default.
    pub stop_timeout: Option<i32>,
    /// Seconds after its start at which it is killed; 0: never.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// How its health is checked; unset is as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthConfig>,
    /// What the host gives.
    pub host: HostConfig,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What the host gives to a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostConfig {
    /// Where its network comes from.
    pub network: NetworkMode,
    /// Which processes it sees.
    pub pid: PidMode,
    /// Whose System V objects and message queues it has.
    pub ipc: IpcMode,
    /// The host's name is its name.
    pub uts_host: bool,
    /// It sees the host's cgroups.
    pub cgroupns_host: bool,
    /// Remove it when it exits.
    pub auto_remove: bool,
    /// When it is started again of itself.
    #[serde(skip_serializing_if = "RestartPolicy::is_no")]
    pub restart: RestartPolicy,
    /// Its first process is the engine's, with the program as its child.
    pub init: bool,
    /// For the OCI runtime and its hooks.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Mount the root read-only.
    pub readonly_rootfs: bool,
    /// Everything allowed: not a boundary.
    pub privileged: bool,
    /// Capabilities beyond the default ones.
    pub cap_add: Vec<String>,
    /// Capabilities to go without.
    pub cap_drop: Vec<String>,
    /// As [`super::security`] knows them.
    pub security_opt: Vec<String>,
    /// Empty or `host`, `auto`, or `CONTAINER:HOST:SIZE[,...]`.
    pub userns: String,
    /// Resource limits of processes.
    pub ulimits: Vec<Ulimit>,
    /// Bytes; 0 is no limit.
    pub memory: i64,
    /// Bytes of memory and swap; 0 is twice `memory`, -1 no limit.
    pub memory_swap: i64,
    /// Thousand-millionths of a CPU; 0 is no limit.
    pub nano_cpus: i64,
    /// Relative weight; 0 is the kernel's default.
    pub cpu_shares: u64,
    /// CPUs to run on; empty is all.
    pub cpuset_cpus: String,
    /// Microseconds; 0 is the kernel's default.
    pub cpu_period: i64,
    /// Microseconds of CPU in each period; 0 and -1 are no limit.
    pub cpu_quota: i64,
    /// Memory nodes to use; empty is all.
    pub cpuset_mems: String,
    /// Bytes that are left to it when memory runs out; 0 is none.
    pub memory_reservation: i64,
    /// Relative weight of block I/O; 0 is the host's default.
    pub blkio_weight: u16,
    /// Most processes; unset or negative is no limit.
    pub pids_limit: Option<i64>,
    /// Bytes of /dev/shm; 0 is 64 MiB.
    pub shm_size: i64,
    /// Bind and tmpfs mounts.
    pub mounts: Vec<Mount>,
    /// Path → options of a tmpfs.
    pub tmpfs: BTreeMap<String, String>,
    /// Devices of the host.
    #[serde(skip_serializing_if = "Devices::is_empty")]
    pub devices: Devices,
    /// Groups of its processes beyond the user's own, by number or name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// The cgroup that its own is made in; empty: the engine's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_parent: String,
    /// The kernel doesn't kill it for want of memory; cgroup v1 only.
    pub oom_kill_disable: bool,
    /// 0 to 100; unset is the host's; cgroup v1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u64>,
    /// Namespaced kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
    /// Where output goes.
    pub log: LogConfig,
    /// `host:address` lines for /etc/hosts.
    pub extra_hosts: Vec<String>,
    /// Name servers; empty takes the host's.
    pub dns: Vec<String>,
    /// Search domains; empty takes the host's.
    pub dns_search: Vec<String>,
    /// Resolver options; empty takes the host's.
    pub dns_options: Vec<String>,
}

/// Where a container's network comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// A network namespace of its own with loopback alone.
    #[default]
    None,
    /// The host's.
    Host,
    /// Another container's: its id.
    Container(String),
}

/// A resource limit of the container's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ulimit {
    /// Lower case, without `RLIMIT_`.
    pub name: String,
    /// -1 is unlimited.
    pub soft: i64,
    /// -1 is unlimited.
    pub hard: i64,
}

/// A mount that the user asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Bind or tmpfs.
    pub kind: MountKind,
    /// On the host; bind only.
    pub source: String,
    /// In the container.
    pub target: String,
    /// Not writable.
    pub read_only: bool,
    /// A propagation word; empty is `rprivate`.
    pub propagation: String,
    /// Without what is mounted below the source.
    pub non_recursive: bool,
    /// Which mounts below it are not writable, where this one isn't.
    pub read_only_reach: ReadOnlyReach,
    /// Make a missing bind source as a directory.
    pub create_source: bool,
    /// Bytes; 0 is no limit; tmpfs only.
    pub tmpfs_size: i64,
    /// 0 is 1777; tmpfs only.
    pub tmpfs_mode: u32,
}

/// Which mounts a read-only bind makes read-only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadOnlyReach {
    /// Those below it as well.
    #[default]
    All,
    /// Those below it as well, said in so many words.
    Forced,
    /// The one alone.
    Top,
}

/// What a mount shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or directory of the host.
    #[default]
    Bind,
    /// Memory.
    Tmpfs,
}

/// A configuration together with its image: what is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Effective {
    /// The executable and its arguments; never empty.
    pub args: Vec<String>,
    /// The whole environment, but for HOME, which the shim adds.
    pub env: Vec<String>,
    /// Absolute.
    pub working_dir: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Host name inside the container.
    pub hostname: String,
    /// Number of the signal for a stop.
    pub stop_signal: i32,
    /// The image's labels and the user's.
    pub labels: BTreeMap<String, String>,
    /// `os/architecture[/variant]` of the image.
    pub platform: String,
    /// How its health is checked; none: not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthConfig>,
    /// Users of its own, which are these on the host; empty: the host's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub id_maps: Vec<IdMap>,
}

/// The document stored with a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// As requested.
    pub config: Config,
    /// In force.
    pub effective: Effective,
}

/// What lists and events need: small, so that a thousand are read quickly.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// The executable and its arguments.
    pub command: Vec<String>,
    /// Labels in force.
    pub labels: BTreeMap<String, String>,
    /// Where the network comes from.
    pub network: NetworkMode,
    /// Mounts the user asked for.
    pub mounts: Vec<Mount>,
    /// Remove it when it exits.
    pub auto_remove: bool,
    /// When it is started again of itself.
    #[serde(skip_serializing_if = "RestartPolicy::is_no")]
    pub restart: RestartPolicy,
    /// Its health is checked.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub health: bool,
    /// The cgroup that its own is made in; empty: the engine's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_parent: String,
}

impl Document {
    /// The part that lists and events need.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            command: self.effective.args.clone(),
            labels: self.effective.labels.clone(),
            network: self.config.host.network.clone(),
            mounts: self.config.host.mounts.clone(),
            auto_remove: self.config.host.auto_remove,
            restart: self.config.host.restart,
            health: self.effective.health.is_some(),
            cgroup_parent: self.config.host.cgroup_parent.clone(),
        }
    }
}
