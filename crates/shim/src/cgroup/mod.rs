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
mod hugetlb;
mod layout;
mod leaf;
mod placement;
mod prime;
mod rdma;
mod resctrl;
mod resources;
pub mod stats;
mod systemd;
mod tree;
mod v1;
mod v2;

pub use group::{Group, Limits};
pub use layout::Layout;
pub use leaf::{kill_leaf, remove_leaf};
pub use placement::{Driver, Placement};
pub use prime::{Primed, prime};
pub use resctrl::Resctrl;
pub use resources::{
    BlockIo, Cpu, CpuSet, Device, DeviceWeight, HugePages, Limit, Memory, Network, OutOfMemory, Rdma,
    Resources, Throttle, Traffic,
};
pub use stats::Stats;
