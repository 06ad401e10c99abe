// SPDX-License-Identifier: Apache-2.0
//! What a container uses, as its cgroups count it. One structure for v1 and
//! v2; the shapes in which others want it are made elsewhere: [`report`] is
//! runc's, containerd's is the Task service's.

mod parse;
pub mod report;
mod v1;
mod v2;

use std::collections::BTreeMap;

use super::{Device, Group};
use crate::runtime::Result;

/// The counters of a container.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Where they come from: it decides what [`Memory::detail`] calls things,
    /// and what [`Memory::swap`] includes.
    pub version: Version,
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices.
    pub block_io: BlockIo,
    /// Huge pages by size.
    pub huge_pages: Vec<HugePages>,
    /// RDMA devices.
    pub rdma: Rdma,
}

/// A generation of cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Version {
    /// A tree per controller, also with a v2 tree beside them.
    V1,
    /// One tree.
    #[default]
    V2,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cpu {
    /// All of it.
    pub usage: u64,
    /// The container's own.
    pub user: u64,
    /// The kernel's for it.
    pub kernel: u64,
    /// By processor, user and kernel; v1 only.
    pub per_cpu: Vec<PerCpu>,
    /// Periods in which there was a quota.
    pub periods: u64,
    /// Those in which it was used up.
    pub throttled_periods: u64,
    /// How long the container then waited.
    pub throttled: u64,
    /// Periods with time saved up before.
    pub bursts: u64,
    /// How much that was.
    pub burst: u64,
    /// Waiting for a processor.
    pub pressure: Option<Pressure>,
}

/// The time on one processor, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerCpu {
    /// The container's own.
    pub user: u64,
    /// The kernel's for it.
    pub kernel: u64,
}

/// Memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// Memory.
    pub usage: Amount,
    /// v1: memory and swap together; v2: swap alone.
    pub swap: Amount,
    /// The kernel's own; v1 only.
    pub kernel: Amount,
    /// Buffers of TCP; v1 only.
    pub kernel_tcp: Amount,
    /// All of memory.stat.
    pub detail: BTreeMap<String, u64>,
    /// What the limits led to.
    pub events: MemoryEvents,
    /// Waiting for memory.
    pub pressure: Option<Pressure>,
}

/// An amount of bytes and its limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Now.
    pub usage: u64,
    /// At most so far.
    pub max_usage: u64,
    /// `u64::MAX`, or nearly, for none.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// How often the kernel acted for want of memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Reclaimed below `memory.low`.
    pub low: u64,
    /// Slowed down above `memory.high`.
    pub high: u64,
    /// At `memory.max`.
    pub max: u64,
    /// Out of memory.
    pub oom: u64,
    /// Processes killed.
    pub oom_kill: u64,
    /// Whole cgroups killed.
    pub oom_group_kill: u64,
    /// Processes wait for memory right now; v1 only.
    pub under_oom: u64,
    /// They'd wait instead of being killed; v1 only.
    pub oom_kill_disable: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// 0 for none.
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockIo {
    /// Bytes by device and operation.
    pub bytes: Vec<IoEntry>,
    /// Operations by device and operation.
    pub operations: Vec<IoEntry>,
    /// Waiting for a device.
    pub pressure: Option<Pressure>,
}

/// One counter of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoEntry {
    /// Which.
    pub device: Device,
    /// `Read`, `Write`, `Discard`, and on v1 `Sync`, `Async`, `Total`.
    pub operation: String,
    /// How much.
    pub value: u64,
}

/// Huge pages of one size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HugePages {
    /// `2MB`.
    pub size: String,
    /// Bytes now.
    pub usage: u64,
    /// v1: bytes at most so far; v2: the limit.
    pub max: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// RDMA devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rdma {
    /// In use.
    pub current: Vec<RdmaEntry>,
    /// `u32::MAX` for no limit.
    pub limit: Vec<RdmaEntry>,
}

/// One RDMA device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RdmaEntry {
    /// Its name.
    pub device: String,
    /// Handles.
    pub handles: u32,
    /// Objects.
    pub objects: u32,
}

/// Pressure stall information (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one process waits.
    pub some: Stall,
    /// All wait.
    pub full: Stall,
}

/// A share of the time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stall {
    /// Percent of the last 10 seconds.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last five minutes.
    pub avg300: f64,
    /// Microseconds in all.
    pub total: u64,
}

impl Group {
    /// What the container uses. What a hierarchy doesn't count stays zero.
    ///
    /// # Errors
    /// When the container's cgroups are gone.
    pub fn stats(&self) -> Result<Stats> {
        match (&self.layout, self.unified()) {
            (super::Layout::V2(_), Some(dir)) => v2::read(dir),
            (_, unified) => v1::read(|controller| self.v1_dir(controller), unified),
        }
    }
}
