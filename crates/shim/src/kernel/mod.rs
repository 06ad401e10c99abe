// SPDX-License-Identifier: Apache-2.0
//! System calls: the only unsafe code of this crate.
//!
//! Thin wrappers around what nix lacks, and the one way to open a path inside
//! a container's root ([`paths`]). Nothing here decides anything. A failed
//! call prints like strace: its name, its arguments, its errno.

pub mod bpf;
mod error;
pub mod identity;
pub mod memory;
pub mod mount;
pub mod net;
pub mod netlink;
pub mod paths;
pub mod process;
pub mod procfs;
pub mod scheduling;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod tty;
pub mod watch;

pub use error::{Result, SysError, fd, forget_names, sys};
pub use procfs::Procfs;
