// SPDX-License-Identifier: Apache-2.0
//! Drives the built shim as the engine does: inherited sockets, ttrpc, attach.
//! Real containers from a busybox root. Needs root, and Debian's
//! busybox-static.
#![allow(clippy::unwrap_used, reason = "a test")]

mod execs;
mod harness;
mod hooks;
mod lifecycle;
mod many;
mod resources;
mod streams;
