// SPDX-License-Identifier: Apache-2.0
//! seccomp: an OCI profile compiled to the kernel's BPF, without libseccomp.
//!
//! `policy` turns the profile's names into numbers for each architecture of
//! the CPU, [`mod@compile`] turns numbers into instructions, and [`check`]
//! says what the kernel would say of a program. All are pure. The engine
//! compiles a profile once and hands the program over; the shim compiles what
//! nobody has compiled for it, and installs it (D17).

mod answer;
mod arch;
mod bpf;
mod check;
pub mod compile;
mod policy;

pub use bpf::Instruction;
pub use check::check;
pub use compile::{Error, Listener, Program, compile};
