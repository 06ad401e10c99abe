// SPDX-License-Identifier: Apache-2.0
//! What a container may use, in plain values. `None`, and an empty list, stay
//! as the kernel has them. Names and units are the specification's
//! (config-linux.md, "Control groups").

use std::collections::BTreeMap;

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most so much.
    At(u64),
    /// As much as there is.
    Unlimited,
}

/// The limits of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Memory.
    pub memory: Memory,
    /// Processor time.
    pub cpu: Cpu,
    /// Processors and memory nodes.
    pub cpuset: CpuSet,
    /// Number of processes and threads.
    pub pids: Option<Limit>,
    /// Input and output of block devices.
    pub block_io: BlockIo,
    /// Huge pages, by size.
    pub huge_pages: Vec<HugePages>,
    /// Marks on network traffic.
    pub network: Network,
    /// Remote direct memory access, by device.
    pub rdma: Vec<Rdma>,
    /// Files of cgroup v2 and what is written to them, after all else.
    pub unified: BTreeMap<String, String>,
}

/// Limits of memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Hard limit.
    pub limit: Option<Limit>,
    /// What is left to the container under pressure.
    pub reservation: Option<Limit>,
    /// Memory and swap together.
    pub swap: Option<Limit>,
    /// Buffers of TCP connections. v1 only.
    pub tcp_buffers: Option<Limit>,
    /// How readily the kernel swaps: 0 to 100. v1 only.
    pub swappiness: Option<u64>,
    /// Processes wait for memory instead of being killed. v1 only.
    pub oom: OutOfMemory,
    /// A limit below what is in use is an error, not a kill.
    pub check_before_update: bool,
    /// Fields that no kernel knows any more, for a warning.
    pub obsolete: Vec<&'static str>,
}

/// What happens to a container without memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OutOfMemory {
    /// Whatever the kernel does.
    #[default]
    Unset,
    /// One of its processes is killed.
    Kill,
    /// Its processes wait.
    Wait,
}

/// Shares and limits of processor time, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Weight among siblings: 2 to 262144, 1024 is normal.
    pub shares: Option<u64>,
    /// Time in each period.
    pub quota: Option<Limit>,
    /// Length of a period.
    pub period: Option<u64>,
    /// Unused quota that may be saved up.
    pub burst: Option<u64>,
    /// 1: only time that nobody else wants.
    pub idle: Option<i64>,
    /// Time of realtime processes in each of their periods. v1 only.
    pub realtime_runtime: Option<i64>,
    /// Length of such a period. v1 only.
    pub realtime_period: Option<u64>,
}

/// Processors and memory nodes that may be used, as lists like `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSet {
    /// Processors.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub mems: Option<String>,
}

/// Weights and limits of block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// Weight among siblings: 10 to 1000, 100 is normal.
    pub weight: Option<u16>,
    /// Weight against the cgroups below. No scheduler has it any more.
    pub leaf_weight: Option<u16>,
    /// Weights for single devices.
    pub device_weights: Vec<DeviceWeight>,
    /// Limits of single devices.
    pub throttles: Vec<Throttle>,
}

/// A block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// A weight for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceWeight {
    /// Which.
    pub device: Device,
    /// As [`BlockIo::weight`].
    pub weight: Option<u16>,
    /// As [`BlockIo::leaf_weight`].
    pub leaf_weight: Option<u16>,
}

/// A limit of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// Which.
    pub device: Device,
    /// What is counted.
    pub what: Traffic,
    /// Bytes or operations a second; 0 is no limit.
    pub rate: u64,
}

/// What a [`Throttle`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// Bytes read.
    ReadBytes,
    /// Bytes written.
    WriteBytes,
    /// Reads.
    ReadOperations,
    /// Writes.
    WriteOperations,
}

/// A limit of huge pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HugePages {
    /// As the kernel writes it: `2MB`.
    pub size: String,
    /// Bytes.
    pub limit: Limit,
}

/// Marks on the traffic of a container, for the host's filters. v1 only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// Class.
    pub class_id: Option<u32>,
    /// Priorities by interface.
    pub priorities: Vec<(String, u32)>,
}

/// Limits of one RDMA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rdma {
    /// Its name.
    pub device: String,
    /// Open handles.
    pub handles: Option<u32>,
    /// Objects.
    pub objects: Option<u32>,
}

impl Memory {
    /// Whether the controller has something to do.
    pub(super) fn is_set(&self) -> bool {
        let unset = Self { check_before_update: self.check_before_update, ..Self::default() };
        Self { obsolete: Vec::new(), ..self.clone() } != unset
    }
}

impl Cpu {
    pub(super) fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

impl CpuSet {
    pub(super) fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

impl BlockIo {
    pub(super) fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

impl Limit {
    /// As v1 writes it.
    pub(super) fn or_minus_one(self) -> String {
        match self {
            Self::At(n) => n.to_string(),
            Self::Unlimited => "-1".to_owned(),
        }
    }

    /// As v2 writes it.
    pub(super) fn or_max(self) -> String {
        match self {
            Self::At(n) => n.to_string(),
            Self::Unlimited => "max".to_owned(),
        }
    }

    /// Of processes: none at all would not even let the first one begin, and
    /// systemd knows no such limit; one is what remains (runc does the same).
    pub(super) fn of_processes(self) -> Self {
        if self == Self::At(0) { Self::At(1) } else { self }
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

impl Traffic {
    /// The field of the specification.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::ReadBytes => "linux.resources.blockIO.throttleReadBpsDevice",
            Self::WriteBytes => "linux.resources.blockIO.throttleWriteBpsDevice",
            Self::ReadOperations => "linux.resources.blockIO.throttleReadIOPSDevice",
            Self::WriteOperations => "linux.resources.blockIO.throttleWriteIOPSDevice",
        }
    }
}
