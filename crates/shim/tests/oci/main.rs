// SPDX-License-Identifier: Apache-2.0
//! Drives `berth-oci` as its callers do: verbs, their words and exit codes,
//! and what they leave. Needs root, and Debian's busybox-static.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bad_input;
mod drop_in;
mod exec;
mod harness;
mod inheritance;
mod life;
mod rootless;
mod terminal;
mod verbs;
