// SPDX-License-Identifier: Apache-2.0
//! The driver `systemd`: a container's cgroup is a transient unit's. systemd
//! makes the directories and is told the limits that it has properties for;
//! all limits are then written as always. Devices are only ours: the program,
//! or v1's list, of a delegated unit is not systemd's to change.

mod bus;
mod properties;
mod scope;
mod unit;
mod wire;

pub(crate) use scope::Scope;
pub(super) use unit::Keeper;
