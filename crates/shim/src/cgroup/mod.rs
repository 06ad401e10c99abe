// SPDX-License-Identifier: Apache-2.0
//! A container's control groups: made before its first process, limited,
//! entered, counted, emptied and removed.
//!
//! A host has cgroup v2, or v1, or v1 with a v2 tree beside it that has no
//! controllers ("hybrid"); in that tree a container gets a directory, too,
//! because only v2 can kill and watch a whole group. One file per controller
//! in `v1` and `v2`, each tested on a directory that plays the file system.
//!
//! Called by `runtime`. What a container sees of its cgroups is `init`'s.

pub mod devices;
mod fs;
mod group;
mod layout;
mod placement;
mod systemd;
mod v1;
mod v2;

pub use group::{Group, Limits};
pub use layout::Layout;
pub use placement::{Driver, Placement};

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// At most so much.
    At(u64),
    /// As much as there is.
    Unlimited,
}

/// The limits of a container; what is `None` stays as the kernel has it.
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
}

/// Shares and limits of processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Weight among siblings: 2 to 262144, 1024 is normal.
    pub shares: Option<u64>,
    /// Microseconds of time in each period.
    pub quota: Option<Limit>,
    /// Length of a period in microseconds.
    pub period: Option<u64>,
}

/// Processors and memory nodes that may be used, as lists like `0-3,7`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSet {
    /// Processors.
    pub cpus: Option<String>,
    /// Memory nodes.
    pub mems: Option<String>,
}

impl Cpu {
    fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

impl CpuSet {
    fn is_set(&self) -> bool {
        *self != Self::default()
    }
}

impl Limit {
    /// As v1 writes it.
    fn or_minus_one(self) -> String {
        match self {
            Self::At(n) => n.to_string(),
            Self::Unlimited => "-1".to_owned(),
        }
    }

    /// As v2 writes it.
    fn or_max(self) -> String {
        match self {
            Self::At(n) => n.to_string(),
            Self::Unlimited => "max".to_owned(),
        }
    }
}
