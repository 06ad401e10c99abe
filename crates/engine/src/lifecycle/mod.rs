// SPDX-License-Identifier: Apache-2.0
//! Use cases: the order of steps, and how they are undone.

pub mod attach;
pub mod containers;
pub mod disk;
pub mod events;
pub mod execs;
pub mod fsck;
pub mod images;
pub mod logs;
pub mod system;
