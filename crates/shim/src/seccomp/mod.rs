// SPDX-License-Identifier: Apache-2.0
//! seccomp: an OCI profile compiled to the kernel's BPF, without libseccomp.
//!
//! [`policy`] turns the profile's names into numbers for each architecture of
//! the CPU, [`mod@compile`] turns numbers into instructions. Both are pure; the
//! program is installed by `init`, as late as its privileges allow (D17).

mod arch;
mod bpf;
pub mod compile;
mod policy;

pub use compile::{Error, Listener, Program, compile};
