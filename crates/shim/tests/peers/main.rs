// SPDX-License-Identifier: Apache-2.0
//! Stock Docker, podman and containerd run their containers by `berth-oci`.
//! Needs root; a test whose program isn't installed says so and passes
//! (scripts/test-deps.sh installs all of them).
#![allow(clippy::unwrap_used, reason = "a test")]

mod containerd;
mod docker;
mod harness;
mod podman;
