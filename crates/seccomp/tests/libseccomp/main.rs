// SPDX-License-Identifier: Apache-2.0
//! Our compiler of seccomp profiles against libseccomp's: two programs, one
//! interpreter, the same calls, the same answers.
//!
//! Needs Debian's libseccomp-dev and a C compiler. Without them the tests fail
//! unless `BERTH_TEST_WITHOUT_LIBSECCOMP` is set: nothing is held against
//! nothing in silence.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod calls;
mod differential;
mod interpreter;
mod profiles;
mod reference;
