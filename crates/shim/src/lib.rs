// SPDX-License-Identifier: Apache-2.0
//! The container shim: one process per container, with the OCI runtime in it.
//!
//! Two programs: the shim, and `berth-oci`, which is the same runtime behind
//! runc's command line ([`oci`]).
//!
//! `boot → serve → supervisor → {runtime, io} → kernel`: data goes one way.
//! One thread, always. [`files`] is a process of its own that works on a
//! container's files.

pub mod boot;
pub mod cgroup;
pub mod files;
pub mod init;
pub mod io;
pub mod kernel;
pub mod oci;
pub mod runtime;
pub mod serve;
pub mod supervisor;
