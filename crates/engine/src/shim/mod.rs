// SPDX-License-Identifier: Apache-2.0
//! The engine's side of a shim: its bundle, its process, its calls, and what
//! is left of it when it dies. What a container is is lifecycle's business.

pub mod attach;
pub mod bundle;
pub mod cgroup;
pub mod files;
pub mod limits;
pub mod manager;
mod metrics;
pub mod process;
pub mod search;
pub mod task;
pub mod timeouts;
