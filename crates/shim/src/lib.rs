// SPDX-License-Identifier: Apache-2.0
//! The container shim: one process per container, with the OCI runtime in it.
//!
//! `boot → serve → supervisor → {runtime, io} → kernel`: data goes one way.
//! One thread, always.

pub mod boot;
pub mod cgroup;
pub mod init;
pub mod io;
pub mod kernel;
pub mod runtime;
pub mod seccomp;
pub mod serve;
pub mod supervisor;
