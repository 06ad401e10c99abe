// SPDX-License-Identifier: Apache-2.0
//! The container shim: one process per container, with the OCI runtime in it.

pub mod cgroup;
mod init;
pub mod kernel;
pub mod runtime;
